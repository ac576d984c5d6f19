"""A connection to one node of a Cluster that carries the calls of many callers. Keeps
each call until it is answered, so that it can be sent to another node."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis
import structlog
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

log = structlog.get_logger()

Reply = Any


class Call:
    """A packed command, and who waits for its reply."""

    __slots__ = ("packed",)

    def __init__(self, packed: bytes) -> None:
        self.packed = packed

    def answer(self, reply: Reply) -> None:
        """The reply, which may be a `ResponseError`."""

    def fail(self, error: Exception) -> None:
        """There is no reply, or none that is known."""


class Awaited(Call):
    """The future gets the reply, or what `read` makes of it."""

    __slots__ = ("_read", "future")

    def __init__(
        self,
        packed: bytes,
        future: "asyncio.Future[Any]",
        read: Callable[[Reply], Any] | None = None,
    ) -> None:
        super().__init__(packed)
        self.future = future
        self._read = read

    def answer(self, reply: Reply) -> None:
        if self.future.done():
            return
        try:
            if self._read is not None:
                reply = self._read(reply)
            elif isinstance(reply, Exception):
                raise reply
        except Exception as error:  # noqa: BLE001 - raised where the reply is awaited
            self.future.set_exception(error)
        else:
            self.future.set_result(reply)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # marks it as retrieved: the caller may be gone


class Told(Call):
    """Nobody waits; `failed` is called if the command fails."""

    __slots__ = ("_failed",)

    def __init__(self, packed: bytes, failed: Callable[[], None]) -> None:
        super().__init__(packed)
        self._failed = failed

    def answer(self, reply: Reply) -> None:
        if isinstance(reply, Exception):
            self.fail(reply)

    def fail(self, error: Exception) -> None:
        try:
            self._failed()
        except Exception:
            # It must not affect other callers.
            log.exception(
                "the handler of a failed call raised",
                action="call_lost",
                cause=str(error),
            )


class Wire(asyncio.Protocol):
    """Takes over a connection that redis-py made and authenticated."""

    def __init__(
        self,
        connection: AbstractConnection,
        answered: Callable[["Wire", Call, Reply], None],
        lost: Callable[["Wire", list[Call], str], None],
    ) -> None:
        """`answered` is called for each reply in the order of the calls; `lost` once,
        with the calls without one and the cause, unless this was closed."""
        made: Any = connection
        self.node: tuple[str, int] = (made.host, made.port)
        self._connection = made  # owns the transport
        self._answered = answered
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=ResponseError)
        self._over = self._loop.create_future()
        self._progress = 0.0  # loop time of the last reply, or of the first call
        self._unsent: list[bytes] = []
        self._then: list[Callable[[], None]] = []  # called when these are written
        self._unanswered: deque[Call] = deque()
        self._idle = asyncio.Event()
        self._transport = cast(asyncio.Transport, made._writer.transport)
        if self._transport.is_closing():
            raise ConnectionResetError
        self._transport.set_protocol(self)
        self._transport.resume_reading()
        # The data is bounded by the number of waiting requests.
        self._transport.set_write_buffer_limits(high=2**30)

    @property
    def busy(self) -> bool:
        return bool(self._unanswered)

    def when_sent(self, then: Callable[[], None]) -> bool:
        if not self._unsent:
            return False
        self._then.append(then)
        return True

    def send(self, call: Call) -> None:
        if not self._unanswered:
            self._progress = self._loop.time()
        self._unanswered.append(call)
        if not self._unsent:
            # The calls of one loop iteration go out together.
            self._loop.call_soon(self._flush)
        self._unsent.append(call.packed)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if not self._over.done():
            self._transport.write(b"".join(unsent))
        then, self._then = self._then, []
        for each in then:
            each()

    def silent_s(self) -> float:
        """For how long calls have waited without any reply."""
        return self._loop.time() - self._progress if self._unanswered else 0.0

    async def lost_within(self, seconds: float) -> None:
        """Returns when the connection ends, or after `seconds`."""
        await asyncio.wait([self._over], timeout=seconds)

    async def idle(self) -> None:
        """Returns when all calls are answered."""
        self._idle.clear()
        if self._unanswered:
            await self._idle.wait()

    def close(self) -> None:
        if not self._over.done():
            self._over.set_result(None)
            self._transport.abort()
            # Otherwise it warns that it was not closed.
            self._connection._close()

    def drop(self, cause: str) -> None:
        """Close the connection, and hand back the calls without a reply."""
        if not self._over.done():
            self.close()
            calls, self._unanswered = list(self._unanswered), deque()
            self._lost(self, calls, cause)

    # asyncio.Protocol --------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._answered(self, self._unanswered.popleft(), reply)
        except (hiredis.ProtocolError, IndexError):
            self.drop("does not speak RESP")
        self._progress = self._loop.time()
        if not self._unanswered:
            self._idle.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.drop("went away")
