"""One client's socket joined to one upstream's: frames pass untouched, both ways,
and each end learns how the other one ended."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from libs.common.contracts.verdicts import Verdict
from libs.common.providers.key_echoes import SentKey
from libs.common.routing.types import OwnerGone
from services.gateway import errors
from services.gateway.errors import Problem, error_frame
from services.gateway.ledger.record import NEUTRAL
from services.gateway.websocket.frames import Frame
from services.gateway.websocket.turns import NotAdmitted, SocketRequests

log = structlog.get_logger()

Message = dict[str, Any]  # as ASGI has them for WebSockets
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Pump = Callable[[], Awaitable["End | None"]]

FAREWELL_S = 5.0  # for a client to read why its socket ends
NORMAL, GOING_AWAY, TOO_BIG, BROKEN, RESTART = 1000, 1001, 1009, 1011, 1012
_FAULT = Verdict(kind="fault", cause="broke off")
_LATE = Verdict(kind="fault", cause="timeout")


@dataclass(frozen=True, slots=True)
class End:
    """How a socket ended, and what that makes of the requests on it."""

    code: int
    reason: str = ""
    problem: Problem | None = None  # what clients with a request running are told
    outcome: str = "failed"
    verdict: Verdict = NEUTRAL
    by_client: bool = False


RETIRED = End(RESTART, "restarts", errors.socket_restarts(), "interrupted")


class SocketRelay:
    """Relays until either end closes, or `finish` is called."""

    def __init__(
        self,
        receive: Receive,
        send: Send,
        requests: SocketRequests,
        largest: int,
    ) -> None:
        """`largest`: bytes of a client's frame."""
        self._receive = receive
        self._send = send
        self._upstream = requests.connection
        self._pumps: list[asyncio.Task[None]] = []
        self._requests = requests
        self._largest = largest
        self._loop = asyncio.get_running_loop()
        self._end: asyncio.Future[End] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._sending = False  # to the client: does it read?
        self._retiring = False

    def finish(self, end: End) -> None:
        """End it. The first word counts."""
        if not self._end.done():
            self._end.set_result(end)

    def retire(self) -> None:
        """End it between two requests: this gateway restarts."""
        self._retiring = True
        if not self._requests.running:
            self.finish(RETIRED)

    async def run(self) -> None:
        """Relay; when this returns both ends are closed and the books, too."""
        end = End(GOING_AWAY, outcome="cancelled", by_client=True)  # if cancelled
        try:
            await self._send({"type": "websocket.accept"})
            self._start(self._upward)
            self._start(self._downward)
            end = await self._end
        finally:
            self._rearm(None)
            for pump in self._pumps:
                pump.cancel()
            await asyncio.gather(*self._pumps, return_exceptions=True)
            await self._close(end)

    # Frames ------------------------------------------------------------------

    def _start(self, pump: Pump) -> None:
        self._pumps.append(asyncio.create_task(self._until_end(pump)))

    async def _follow(self, upstream: ClientConnection) -> None:
        """If the first request moved to another socket: on this one nothing was
        said."""
        if upstream is self._upstream:
            return
        left, self._upstream = self._upstream, upstream
        downward = self._pumps.pop()
        downward.cancel()
        await asyncio.gather(downward, return_exceptions=True)
        self._start(self._downward)
        try:
            await left.close()
        finally:
            left.transport.abort()

    async def _until_end(self, pump: Pump) -> None:
        try:
            end = await pump()
        except Exception:
            log.exception("socket failed", action="socket_failed")
            end = End(BROKEN, "internal error", errors.internal())
        if end is not None:
            self.finish(end)

    async def _upward(self) -> End | None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return End(NORMAL, outcome="cancelled", by_client=True)
            text = message.get("text")
            frame: Frame = message.get("bytes", b"") if text is None else text
            if len(frame) > self._largest:
                return End(TOO_BIG, f"over {self._largest} bytes")
            try:
                turn = await self._requests.begin(frame)
            except OwnerGone:
                problem = errors.socket_broke("belongs to a key that was removed")
                return End(RESTART, "key removed", problem)
            except NotAdmitted as refused:
                told = error_frame(refused.problem, refused.lane)
                await self._send(_sent(told))
                continue
            self._rearm(self._requests.deadline)
            await self._follow(self._requests.connection)
            if turn is not None:
                frame = turn.frame
                self._requests.sent(turn)
            try:
                await self._upstream.send(frame)
            except ConnectionClosed:
                return None  # what it said before may still be on its way down

    async def _downward(self) -> End:
        key = self._requests.upstream_key
        while True:
            try:
                frame = key.masked_frame(await self._upstream.recv())
            except ConnectionClosed as closed:
                return _upstreams_end(closed, key)
            # First the books: a client that saw its answer may leave at once.
            reading = self._requests.note(frame)
            if reading is not None:
                await reading
            self._rearm(self._requests.deadline)
            self._sending = True
            await self._send(_sent(frame))
            self._sending = False
            if self._retiring:
                self.retire()

    # Time --------------------------------------------------------------------

    def _rearm(self, deadline: float | None) -> None:
        if self._timer is not None:
            if self._timer.when() == deadline:
                return
            self._timer.cancel()
        self._timer = None
        if deadline is not None:
            self._timer = self._loop.call_at(deadline, self._late)

    def _late(self) -> None:
        if self._sending:
            # It says nothing of the resource.
            self.finish(End(BROKEN, "client stalled", errors.client_stalled()))
        else:
            late = errors.socket_broke("gave no answer in time")
            self.finish(End(BROKEN, "timeout", late, verdict=_LATE))

    # Ends --------------------------------------------------------------------

    async def _close(self, end: End) -> None:
        ended = self._requests.end_all(end.outcome, end.problem, end.verdict)
        try:
            if not end.by_client:
                async with asyncio.timeout(FAREWELL_S):
                    for turn in ended:
                        await self._tell(end, turn.lane)
                    await self._send(_closed(end))
        except TimeoutError:
            log.debug("no farewell", action="client_stalled")
        finally:
            await self._upstream.close(RESTART if end.code == RESTART else NORMAL)

    async def _tell(self, end: End, lane: str | None) -> None:
        if end.problem is not None:
            await self._send(_sent(errors.error_frame(end.problem, lane)))


def _upstreams_end(closed: ConnectionClosed, sent: SentKey) -> End:
    if closed.rcvd is None and closed.sent is not None and closed.sent.code == TOO_BIG:
        problem = errors.socket_broke("sent more than this gateway takes")
        return End(TOO_BIG, "event too large", problem)
    problem = errors.socket_broke("broke off")
    if closed.rcvd is None:
        return End(BROKEN, "upstream broke off", problem, verdict=_FAULT)
    code, reason = closed.rcvd.code, sent.hidden(closed.rcvd.reason)
    if code in (1005, 1006, 1015):  # never on the wire
        code = NORMAL
    return End(code, reason, problem, verdict=_FAULT)


def _sent(frame: Frame) -> dict[str, Any]:
    kind = "text" if isinstance(frame, str) else "bytes"
    return {"type": "websocket.send", kind: frame}


def _closed(end: End) -> dict[str, Any]:
    return {"type": "websocket.close", "code": end.code, "reason": end.reason}
