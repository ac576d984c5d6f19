"""Redis connections: an ordinary client for control traffic, and for the hot path one
shared connection that sends the calls of an event-loop iteration together. redis-py
makes the connection (TLS, authentication, Sentinel)."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import hiredis
import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from libs.common.errors import RedisAway
from libs.common.redis import factory
from libs.common.redis.keys import DEFAULT, Keys
from libs.common.redis.packing import packed
from libs.common.runtime.lifecycle import end

log = structlog.get_logger()

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 2.0
RECONNECT_PAUSE_S = 0.2
DEMOTED = "READONLY"  # prefix of a replica's reply to a write

Reply = Any
T = TypeVar("T")
Refused = ResponseError  # an error reply: Redis is full, a replica, ...


def connect(url: str, keys: Keys = DEFAULT) -> Redis:
    """A client for control traffic. Connects on first use; raises redis-py's errors.
    Calls that block longer than the timeout need a client of their own."""
    return factory.client(url, CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S, keys)


class SharedConnection:
    """One connection for many callers. Commands are executed in the order of the calls,
    so a release never overtakes its acquire.

    While the connection is down all calls fail at once with `RedisAway`; it reconnects
    by itself. An error reply (`ResponseError`) fails its own call only.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._wire: _Wire | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._trouble = ""  # why it is down, as last logged
        self.connections = 0  # made so far; more than one: replies were lost

    @property
    def up(self) -> bool:
        return self._wire is not None

    @property
    def busy(self) -> bool:
        """Whether calls wait for a reply."""
        return self._wire is not None and bool(self._wire.unanswered)

    def pending(self) -> bool:
        """Whether calls of this loop iteration are not written yet."""
        return self._wire is not None and bool(self._wire.unsent)

    async def open(self) -> None:
        """Connect, or keep trying. Returns after the first attempt."""
        with contextlib.suppress(RedisAway):
            await self._connect()
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        if self._keeper:
            # A connection attempt may lose a cancellation, and be repeated forever.
            await end([self._keeper])
        if self._wire is not None:
            self._wire.drop("was closed")
        await self._client.aclose()

    def call(self, *command: Any) -> asyncio.Future[Reply]:
        """Send a command, which may be a form (`packing.py`); the future gets its
        reply. Canceling the future does not cancel the command."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        wire = self._wire
        if wire is None:
            future.set_exception(RedisAway("Redis is not connected."))
            return future
        try:
            # Before the call is queued: replies are matched by order.
            ready = packed(command)
        except (TypeError, ValueError) as error:
            future.set_exception(Refused(f"cannot be sent: {type(error).__name__}"))
            return future
        wire.ask(ready, future)
        return future

    def ask(
        self, read: Callable[[Reply], T], command: tuple[Any, ...]
    ) -> "asyncio.Future[T]":
        """The same, but the future gets what `read` returns or raises for the reply,
        which may be a `ResponseError`. Saves callers a coroutine, and copies of the
        command."""
        wire = self._wire
        if wire is not None:
            try:
                ready = packed(command)
            except (TypeError, ValueError):
                pass
            else:
                future: asyncio.Future[T] = self._loop.create_future()
                wire.ask(ready, (future, read))
                return future
        return self._unsent(read, self.call(*command))

    def _unsent(
        self, read: Callable[[Reply], T], refused: "asyncio.Future[Reply]"
    ) -> "asyncio.Future[T]":
        """The failure of a call as `read` tells it."""
        future: asyncio.Future[T] = self._loop.create_future()
        error = refused.exception()
        assert isinstance(error, Exception)
        if isinstance(error, Refused):
            _read(future, read, error)
        else:
            future.set_exception(error)
        return future

    def tell(self, failed: Callable[[], None], *command: Any) -> None:
        """Send a command without waiting for its reply. Calls `failed` if the command
        failed or its outcome is unknown."""
        wire = self._wire
        if wire is None:
            failed()
            return
        try:
            ready = packed(command)
        except (TypeError, ValueError):
            failed()
            return
        wire.ask(ready, failed)

    # The connection ----------------------------------------------------------

    async def _keep(self) -> None:
        """Reconnects when the connection is lost, and drops it when Redis hangs, so
        that callers do not hang."""
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
        made = await self._made(connection)
        if isinstance(made, Exception):
            await connection.disconnect(nowait=True)
            self._say(factory.cause_of(made))
            raise RedisAway("Redis cannot be reached.") from made
        self._wire, self._trouble = made, ""
        self.connections += 1
        log.info("redis connected", action="redis_connected")

    async def _made(self, connection: AbstractConnection) -> "_Wire | Exception":
        """Returns what went wrong, because compiled code cannot wait in a handler."""
        try:
            # Includes the question to Sentinels.
            async with asyncio.timeout(2 * CONNECT_TIMEOUT_S):
                await connection.connect()  # type: ignore[no-untyped-call]
            return _Wire(connection, self._lost)
        except Exception as error:  # noqa: BLE001 - it is the cause of what is raised
            # Any failure, also of a connection that is lost at once: nothing else
            # would reconnect.
            return error

    def _say(self, trouble: str) -> None:
        """Log each cause once, not each attempt."""
        if trouble != self._trouble:
            log.warning(
                "redis cannot be reached", action="redis_unreachable", cause=trouble
            )
        self._trouble = trouble

    def _lost(self, calls: int) -> None:
        self._wire = None
        log.warning("redis lost", action="redis_lost", lost_calls=calls)


_Future: Final = asyncio.Future
Reading = tuple[asyncio.Future[Any], Callable[[Reply], Any]]
# For `tell` the handler of a failure, at a fraction of a future's cost.
Waiter = asyncio.Future[Reply] | Reading | Callable[[], None]


def _tell(failed: Callable[[], None]) -> None:
    """Report a failure. Errors in `failed` must not affect other callers."""
    try:
        failed()
    except Exception:
        log.exception("the handler of a failed call raised", action="call_lost")


def _read(
    future: "asyncio.Future[Any]", read: Callable[[Reply], Any], reply: Reply
) -> None:
    """Pass on what `read` makes of a reply."""
    if future.done():
        return
    try:
        future.set_result(read(reply))
    except Exception as error:  # noqa: BLE001 - it is raised where the reply is awaited
        # Its traceback refers to this frame, and so to the future: a cycle.
        future.set_exception(error.with_traceback(None))


def _refuse(waiter: Waiter, error: Exception) -> None:
    if isinstance(waiter, asyncio.Future):
        if not waiter.done():
            waiter.set_exception(error)
    elif not isinstance(waiter, tuple):
        _tell(waiter)


class _Wire(asyncio.Protocol):
    """Takes over a connection that redis-py made and authenticated. Bytes go from the
    socket to hiredis without redis-py's stream reader, task and timer, which are most
    of the cost of a call."""

    def __init__(self, connection: AbstractConnection, lost: Any) -> None:
        """`lost` is called once with the number of calls without a reply."""
        self._loop = asyncio.get_running_loop()
        self.connection = connection  # owns the transport
        self._reader = hiredis.Reader(replyError=ResponseError)
        self._lost = lost
        self._over = self._loop.create_future()
        self._progress = (
            0.0  # loop time of the last reply, or of the first unanswered call
        )
        self.unsent: list[bytes] = []
        self._asked = 0  # calls in this iteration of the loop
        self._seldom = True  # the last iteration with calls had only one
        self.unanswered: deque[Waiter] = deque()
        self._transport = cast(asyncio.Transport, connection._writer.transport)  # type: ignore[union-attr]
        if self._transport.is_closing():
            raise ConnectionResetError
        self._transport.set_protocol(self)
        self._transport.resume_reading()
        # The data is bounded by the number of waiting requests.
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
            self.unsent.append(packed)

    def _flush(self) -> None:
        """Send the calls of one loop iteration in one system call. (`ask` sends the
        first call at once while iterations have one call at most.)"""
        unsent, self.unsent = self.unsent, []
        self._seldom, self._asked = self._asked == 1, 0
        if unsent and not self._over.done():
            self._transport.write(b"".join(unsent))

    def silent_s(self) -> float:
        """For how long calls have waited without any reply."""
        return self._loop.time() - self._progress if self.unanswered else 0.0

    async def lost_within(self, seconds: float) -> None:
        """Returns when the connection is lost, or after `seconds`."""
        await asyncio.wait([self._over], timeout=seconds)

    def drop(self, cause: str) -> None:
        """Close the connection and fail all waiting calls."""
        if self._over.done():
            return
        self._over.set_result(None)
        waiters, self.unanswered = self.unanswered, deque()
        # First: whatever the handlers below do, no dead connection stays in use.
        self._lost(len(waiters))
        self._transport.abort()
        # Otherwise it warns that it was not closed.
        self.connection._close()  # type: ignore[no-untyped-call]
        error = RedisAway(f"Redis {cause}.")
        for waiter in waiters:
            if isinstance(waiter, tuple):
                waiter = waiter[0]  # noqa: PLW2901 - there is nothing to read
            if not isinstance(waiter, asyncio.Future):
                _tell(waiter)
            elif not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # marks it as retrieved: the caller may be gone

    # asyncio.Protocol --------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                waiter = self.unanswered.popleft()
                # Most replies are bytes, and most waiters no futures. A loop without
                # calls for these: each costs as much as the rest.
                if type(reply) is not bytes:
                    self._settle(waiter, reply)
                elif type(waiter) is tuple:
                    _read(waiter[0], waiter[1], reply)
                elif isinstance(waiter, _Future) and not waiter.done():
                    waiter.set_result(reply)
        except (hiredis.ProtocolError, IndexError):
            self.drop("does not speak RESP")
        self._progress = self._loop.time()

    def _settle(self, waiter: Waiter, reply: Reply) -> None:
        """A reply that is no text."""
        failed = isinstance(reply, Exception)
        if isinstance(waiter, tuple):
            _read(waiter[0], waiter[1], reply)
        elif failed:
            _refuse(waiter, reply)
        elif isinstance(waiter, _Future) and not waiter.done():
            waiter.set_result(reply)
        if failed and str(reply).startswith(DEMOTED):
            # It keeps replying but accepts no writes. Reconnecting finds the new
            # primary, through Sentinels or the host name.
            self.drop("is a replica now")

    def connection_lost(self, exc: Exception | None) -> None:
        self.drop("went away")
