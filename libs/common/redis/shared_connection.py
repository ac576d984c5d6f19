"""Redis connections: an ordinary client for control traffic, and for the hot
path one shared connection on which the calls of an event-loop tick travel
together. redis-py makes the connection (TLS, authentication, Sentinel)."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis
import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from libs.common.errors import RedisAway
from libs.common.redis import factory

log = structlog.get_logger()

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 2.0
RECONNECT_PAUSE_S = 0.2
DEMOTED = "READONLY"  # how a replica refuses to write

Reply = Any
Refused = ResponseError  # Redis answered a call with an error: full, a replica, ...


def connect(url: str) -> Redis:
    """A client for control traffic. Connects on first use; its errors are
    redis-py's. Calls that block longer than the timeout need one of their own."""
    return factory.client(url, CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S)


class SharedConnection:
    """One connection, many callers. Commands are answered in the order in which
    they were called, so a release never overtakes its acquire.

    While the connection is down every call fails at once with `RedisAway`; it
    comes back by itself. An error reply (`ResponseError`) fails its own call
    only.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._wire: _Wire | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._trouble = ""  # why it is down, as it was said last
        self.connections = 0  # made so far: more than one means replies were lost

    @property
    def up(self) -> bool:
        return self._wire is not None

    @property
    def busy(self) -> bool:
        """Are there calls that have not been answered?"""
        return self._wire is not None and bool(self._wire.unanswered)

    async def open(self) -> None:
        """Connect, or begin trying. Returns after the first attempt."""
        with contextlib.suppress(RedisAway):
            await self._connect()
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        if self._keeper:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._wire is not None:
            self._wire.drop("was closed")
        await self._client.aclose()

    def call(self, *command: Any) -> asyncio.Future[Reply]:
        """Send a command; the future gives its reply. It is sent even when the
        caller no longer waits."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        wire = self._wire
        if wire is None:
            future.set_exception(RedisAway("Redis is not connected."))
            return future
        try:
            # Before it is counted as asked: replies are told apart by their order
            # alone. hiredis packs in C, redis-py's asyncio connection in Python.
            packed = hiredis.pack_command(command)
        except (TypeError, ValueError) as error:
            future.set_exception(Refused(f"cannot be sent: {type(error).__name__}"))
            return future
        wire.ask(packed, future)
        return future

    def tell(self, failed: Callable[[], None], *command: Any) -> None:
        """Send a command whose reply nobody needs; `failed` is called should it not
        be done, or not be known to be."""
        wire = self._wire
        if wire is None:
            failed()
            return
        try:
            packed = hiredis.pack_command(command)
        except (TypeError, ValueError):
            failed()
            return
        wire.ask(packed, _Told(failed))

    # The connection ----------------------------------------------------------

    async def _keep(self) -> None:
        """Connect anew whenever the connection is lost, and give one up that hangs:
        a Redis that hangs must not hang its callers."""
        look_at = 0.0
        while True:
            wire = self._wire
            if wire is None:
                with contextlib.suppress(RedisAway):
                    await self._connect()
                await asyncio.sleep(RECONNECT_PAUSE_S)
            elif wire.silent_s() > ANSWER_TIMEOUT_S:
                wire.drop("does not answer")
            elif self._loop.time() >= look_at:
                look_at = self._loop.time() + factory.LOOK_EVERY_S
                if await factory.replaced(self._client, wire.connection):
                    wire.drop("is not the primary any more")
            else:
                await wire.lost_within(ANSWER_TIMEOUT_S / 4)

    async def _connect(self) -> None:
        connection: AbstractConnection = (
            self._client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        )
        try:
            # Sentinels are asked first.
            async with asyncio.timeout(2 * CONNECT_TIMEOUT_S):
                await connection.connect()  # type: ignore[no-untyped-call]
            wire = _Wire(connection, self._lost)
        except Exception as error:
            # Whatever it is, also a connection that was lost as soon as it was made:
            # nobody else would try again.
            await connection.disconnect(nowait=True)
            self._say(factory.cause_of(error))
            raise RedisAway("Redis cannot be reached.") from error
        self._wire, self._trouble = wire, ""
        self.connections += 1
        log.info("redis connected", action="redis_connected")

    def _say(self, trouble: str) -> None:
        """Once for each cause, not for each try."""
        if trouble != self._trouble:
            log.warning(
                "redis cannot be reached", action="redis_unreachable", cause=trouble
            )
        self._trouble = trouble

    def _lost(self, calls: int) -> None:
        self._wire = None
        log.warning("redis lost", action="redis_lost", lost_calls=calls)


class _Told:
    """Waits for a reply in place of a future, at a fraction of its cost."""

    __slots__ = ("failed",)

    def __init__(self, failed: Callable[[], None]) -> None:
        self.failed = failed

    def tell(self) -> None:
        """It failed. What the one who hears it raises is kept from the others, who
        wait for replies of their own."""
        try:
            self.failed()
        except Exception:
            log.exception("a failed call was not dealt with", action="call_lost")


Waiter = asyncio.Future[Reply] | _Told


class _Wire(asyncio.Protocol):
    """A connection that redis-py made and greeted, taken over: bytes go from the
    socket to hiredis without a stream, a task or a timer in between, which is
    most of what a call costs (hotpath.md)."""

    def __init__(self, connection: AbstractConnection, lost: Any) -> None:
        """`lost` is told, once, how many calls will get no reply."""
        self._loop = asyncio.get_running_loop()
        self.connection = connection  # keeps the transport's owner alive
        self._reader = hiredis.Reader(replyError=ResponseError)
        self._lost = lost
        self._over = self._loop.create_future()
        self._progress = 0.0  # loop time of the last reply, or of the first wait
        self._unsent: list[bytes] = []
        self._asked = 0  # in this turn
        self._seldom = True  # in the last turn that had any it was one
        self.unanswered: deque[Waiter] = deque()
        self._transport = cast(asyncio.Transport, connection._writer.transport)  # type: ignore[union-attr]
        if self._transport.is_closing():
            raise ConnectionResetError
        self._transport.set_protocol(self)
        self._transport.resume_reading()
        # What is in flight is bounded by the requests that wait for it.
        self._transport.set_write_buffer_limits(high=2**30)

    def ask(self, packed: bytes, waiter: Waiter) -> None:
        if not self.unanswered:
            self._progress = self._loop.time()
        self.unanswered.append(waiter)
        if not self._asked:
            self._loop.call_soon(self._flush)
        self._asked += 1
        if self._asked == 1 and self._seldom:
            self._transport.write(packed)
        else:
            self._unsent.append(packed)

    def _flush(self) -> None:
        """Send what one turn of the loop collected, in one system call. Where turns
        have one call at most, it need not wait for their end."""
        unsent, self._unsent = self._unsent, []
        self._seldom, self._asked = self._asked == 1, 0
        if unsent and not self._over.done():
            self._transport.write(b"".join(unsent))

    def silent_s(self) -> float:
        """How long calls have waited without any reply."""
        return self._loop.time() - self._progress if self.unanswered else 0.0

    async def lost_within(self, seconds: float) -> None:
        """Returns when the connection is lost, or the time is over."""
        await asyncio.wait([self._over], timeout=seconds)

    def drop(self, cause: str) -> None:
        """Give it up; whoever waits is told."""
        if self._over.done():
            return
        self._over.set_result(None)
        waiters, self.unanswered = self.unanswered, deque()
        # The keeper first: whatever the others do when they hear of it, a dead
        # connection is not left in place.
        self._lost(len(waiters))
        self._transport.abort()
        # It would warn that nobody closed it.
        self.connection._close()  # type: ignore[no-untyped-call]
        error = RedisAway(f"Redis {cause}.")
        for waiter in waiters:
            if isinstance(waiter, _Told):
                waiter.tell()
            elif not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # nobody may be waiting any more

    # asyncio.Protocol --------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._settle(reply)
        except (hiredis.ProtocolError, IndexError):
            self.drop("does not speak RESP")
        self._progress = self._loop.time()

    def _settle(self, reply: Reply) -> None:
        waiter = self.unanswered.popleft()
        if isinstance(reply, Exception):
            self._refuse(waiter, reply)
        elif not isinstance(waiter, _Told) and not waiter.done():
            waiter.set_result(reply)

    def _refuse(self, waiter: Waiter, error: Exception) -> None:
        if isinstance(waiter, _Told):
            waiter.tell()
        elif not waiter.done():
            waiter.set_exception(error)
        if str(error).startswith(DEMOTED):
            # It goes on answering, and will never serve us again: look for the new
            # primary, by Sentinel or whatever stands behind the host's name.
            self.drop("is a replica now")

    def connection_lost(self, exc: Exception | None) -> None:
        self.drop("went away")
