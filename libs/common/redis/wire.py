"""The hot path's connection to Redis on the wire: commands out, replies in. Opened and
replaced by `shared_connection.py`."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis
import structlog
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from libs.common.errors import RedisAway

log = structlog.get_logger()

DEMOTED = "READONLY"  # prefix of a replica's reply to a write
# The reply to a report while its gateway is the only one (services/router/functions).
ALONE: Final = -1
# For how long a report may wait, and for how long that reply allows it. At lower rates
# a report rarely meets another call within this time, so it is sent at once.
WAITS_S: Final = 0.01

Reply = Any

_Future: Final = asyncio.Future
# Methods of a class in C, found once: a look-up by name costs as much as the call.
_is_done: Final = asyncio.Future.done
_set_result: Final = asyncio.Future.set_result
Reading = tuple[asyncio.Future[Any], Callable[[Reply], Any]]
# For `tell` the handler of a failure, at a fraction of a future's cost.
Waiter = asyncio.Future[Reply] | Reading | Callable[[], None]


def _tell(failed: Callable[[], None]) -> None:
    """Report a failure. Errors in `failed` must not affect other callers."""
    try:
        failed()
    except Exception:
        log.exception("the handler of a failed call raised", action="call_lost")


def read_reply(
    future: "asyncio.Future[Any]", read: Callable[[Reply], Any], reply: Reply
) -> None:
    """Pass on what `read` makes of a reply."""
    if _is_done(future):
        return
    try:
        _set_result(future, read(reply))
    except Exception as error:  # noqa: BLE001 - it is raised where the reply is awaited
        # Its traceback refers to this frame, and so to the future: a cycle.
        future.set_exception(error.with_traceback(None))


def _refuse(waiter: Waiter, error: Exception) -> None:
    if isinstance(waiter, asyncio.Future):
        if not waiter.done():
            waiter.set_exception(error)
    elif not isinstance(waiter, tuple):
        _tell(waiter)


class Wire(asyncio.Protocol):
    """Takes over a connection that redis-py made and authenticated. Bytes go from the
    socket to hiredis without redis-py's stream reader, task and timer, which are most
    of the cost of a call."""

    def __init__(self, connection: AbstractConnection, lost: Any) -> None:
        """`lost` is called once with the number of calls without a reply."""
        self._loop = asyncio.get_running_loop()
        self.connection = connection  # owns the transport
        reader = hiredis.Reader(replyError=ResponseError)
        # Bound once, because a look-up of a method costs a third of its call.
        self._feed: Callable[[bytes], None] = reader.feed
        self._next_reply: Callable[[], Reply] = reader.gets
        self._now: Callable[[], float] = self._loop.time
        self._call_soon: Callable[[Callable[[], None]], Any] = self._loop.call_soon
        self._call_later: Callable[[float, Callable[[], None]], Any] = (
            self._loop.call_later
        )
        self._lost, self._over = lost, self._loop.create_future()
        self._progress = 0.0  # the last reply, or the first unanswered call (loop time)
        self._unsent: list[bytes] = []
        self._then: list[Callable[[], None]] = []  # called when these are written
        self._asked = 0  # calls in this iteration of the loop
        self._seldom = True  # the last iteration with calls had only one
        self._may_wait = False  # may reports? No longer than WAITS_S from `_allowed`
        self._allowed = 0.0  # loop time
        self._waits = False  # are reports that wait all that is in `_unsent`?
        self._waits_since = 0.0  # loop time
        self._timed = False  # a timer runs, which sends reports that wait too long
        self.unanswered: deque[Waiter] = deque()  # always the same
        self._add_waiter: Callable[[Waiter], None] = self.unanswered.append
        self._next_waiter: Callable[[], Waiter] = self.unanswered.popleft
        self._transport = cast(asyncio.Transport, connection._writer.transport)  # type: ignore[union-attr]
        self._write: Callable[[bytes], None] = self._transport.write
        if self._transport.is_closing():
            raise ConnectionResetError
        self._transport.set_protocol(self)
        self._transport.resume_reading()
        self._transport.set_write_buffer_limits(high=2**30)  # bounded by the requests

    def when_sent(self, then: Callable[[], None]) -> bool:
        """Whether the caller has to wait until the calls of this loop iteration are
        written. If so, `then` is called once they are, or never will be. It must not
        raise. No caller has to wait for reports that wait themselves."""
        if self._waits or not self._unsent:
            return False
        self._then.append(then)
        return True

    def ask(self, packed: bytes, waiter: Waiter) -> None:
        if not self.unanswered:
            self._progress = self._now()
        self._add_waiter(waiter)
        if not self._asked:
            self._call_soon(self._flush)
        self._asked += 1
        if self._asked == 1 and self._seldom:
            if self._waits:
                self._waits = False
                self._unsent.append(packed)
                packed = b"".join(self._unsent)
                self._unsent = []
            self._write(packed)
        else:
            self._waits = False
            self._unsent.append(packed)

    def report(self, packed: bytes, failed: Callable[[], None]) -> None:
        """A call whose reply nobody awaits. While no other connection depends on it, it
        waits for the next call, which saves both sides a wake-up. (Calls are executed
        in their order all the same.) Under full load many calls share an iteration
        anyway. Answers that then end together bring requests that arrive together."""
        if not self._may_wait or self._asked or not self._seldom:
            self.ask(packed, failed)
            return
        now = self._now()
        if now - self._allowed >= WAITS_S:
            self._may_wait = False
            self.ask(packed, failed)
            return
        if not self.unanswered:
            self._progress = now
        self._add_waiter(failed)
        if not self._waits:
            self._waits, self._waits_since = True, now
        self._unsent.append(packed)
        if not self._timed:
            self._timed = True
            self._call_later(WAITS_S, self._end_wait)

    def _end_wait(self) -> None:
        """Send reports that have waited long enough. Those that a call took along in
        the meantime cost no timer of their own."""
        self._timed = False
        if not self._waits:
            return
        left = self._waits_since + WAITS_S - self._now()
        if left <= 0:
            self.send_unsent()
        else:
            self._timed = True
            self._call_later(left, self._end_wait)

    def _flush(self) -> None:
        """Send the calls of one loop iteration in one system call. (`ask` sends the
        first call at once while iterations have one call at most.)"""
        self._seldom, self._asked = self._asked == 1, 0
        self.send_unsent()

    def send_unsent(self) -> None:
        """Send what waits for other calls."""
        unsent = self._unsent
        if not unsent:
            return
        self._unsent, self._waits = [], False
        if not self._over.done():
            self._write(b"".join(unsent))
        then = self._then
        if then:
            self._then = []
            for each in then:
                each()

    def silent_s(self) -> float:
        """For how long calls have waited without any reply."""
        return self._now() - self._progress if self.unanswered else 0.0

    async def lost_within(self, seconds: float) -> None:
        """Returns when the connection is lost, or after `seconds`."""
        await asyncio.wait([self._over], timeout=seconds)

    def drop(self, cause: str) -> None:
        """Close the connection and fail all waiting calls."""
        if self._over.done():
            return
        self._over.set_result(None)
        waiters = list(self.unanswered)
        self.unanswered.clear()
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
        self._progress = self._now()
        try:
            self._feed(data)
            while (reply := self._next_reply()) is not False:
                waiter = self._next_waiter()
                # Most replies are bytes, and most waiters no futures. A loop without
                # calls for these: each costs as much as the rest.
                if type(reply) is int:
                    self._count(waiter, reply)
                elif type(reply) is not bytes:
                    self._settle(waiter, reply)
                elif type(waiter) is tuple:
                    read_reply(waiter[0], waiter[1], reply)
                elif isinstance(waiter, _Future) and not waiter.done():
                    waiter.set_result(reply)
        except (hiredis.ProtocolError, IndexError):
            self.drop("does not speak RESP")

    def _count(self, waiter: Waiter, reply: int) -> None:
        """A number: what most reports get while they may wait."""
        if type(waiter) is tuple:
            read_reply(waiter[0], waiter[1], reply)
        elif isinstance(waiter, _Future):
            if not waiter.done():
                waiter.set_result(reply)
        elif reply == ALONE:
            self._may_wait, self._allowed = True, self._progress

    def _settle(self, waiter: Waiter, reply: Reply) -> None:
        """A reply that is neither text nor a number."""
        failed = isinstance(reply, Exception)
        if isinstance(waiter, tuple):
            read_reply(waiter[0], waiter[1], reply)
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
