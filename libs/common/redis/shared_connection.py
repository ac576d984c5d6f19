"""Redis connections: an ordinary client for control traffic, and for the hot path one
shared connection that sends the calls of an event-loop iteration together. redis-py
makes the connection (TLS, authentication, Sentinel)."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from libs.common.errors import RedisAway
from libs.common.redis import factory
from libs.common.redis.keys import DEFAULT, Keys
from libs.common.redis.packing import Caller, packed
from libs.common.redis.wire import Reply, Wire, read_reply
from libs.common.runtime.lifecycle import end

log = structlog.get_logger()

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 2.0
RECONNECT_PAUSE_S = 0.2

T = TypeVar("T")
Refused = ResponseError  # an error reply: Redis is full, a replica, ...


def connect(url: str, keys: Keys = DEFAULT) -> Redis:
    """A client for control traffic. Connects on first use; raises redis-py's errors.
    Calls that block longer than the timeout need a client of their own."""
    return factory.client(url, CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S, keys)


class SharedConnection(Caller):
    """One connection for many callers. Commands are executed in the order of the calls,
    so a release never overtakes its acquire.

    While the connection is down all calls fail at once with `RedisAway`; it reconnects
    by itself. An error reply (`ResponseError`) fails its own call only.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._new_future: Callable[[], asyncio.Future[Any]] = self._loop.create_future
        self._wire: Wire | None = None
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

    def when_sent(self, then: Callable[[], None]) -> bool:
        """Whether the caller has to wait until the calls of this loop iteration are
        written. If so, `then` is called once they are, or never will be. It must not
        raise. No caller has to wait for reports that wait themselves."""
        wire = self._wire
        return wire is not None and wire.when_sent(then)

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
            self._wire.send_unsent()
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
                future: asyncio.Future[T] = self._new_future()
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
            read_reply(future, read, error)
        else:
            future.set_exception(error)
        return future

    def tell(self, failed: Callable[[], None], command: tuple[Any, ...]) -> None:
        """Send a command without waiting for its reply. Calls `failed` if the command
        failed or its outcome is unknown. May be sent with the next call, up to 10 ms
        later, if the one before told that nobody depends on it (`Wire.report`)."""
        wire = self._wire
        if wire is None:
            failed()
            return
        try:
            ready = packed(command)
        except (TypeError, ValueError):
            failed()
            return
        wire.report(ready, failed)

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

    async def _made(self, connection: AbstractConnection) -> "Wire | Exception":
        """Returns what went wrong, because compiled code cannot wait in a handler."""
        try:
            # Includes the question to Sentinels.
            async with asyncio.timeout(2 * CONNECT_TIMEOUT_S):
                await connection.connect()  # type: ignore[no-untyped-call]
            return Wire(connection, self._lost)
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
