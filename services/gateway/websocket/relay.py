"""Relays messages between a client's socket and an upstream's until either ends."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from libs.common.contracts.verdicts import Verdict
from libs.common.providers.key_echoes import SentKey
from libs.common.routing.types import OwnerGone
from services.gateway import errors
from services.gateway.errors import Problem, error_frame
from services.gateway.ledger.record import NEUTRAL
from services.gateway.websocket.client import ClientSocket, Closed
from services.gateway.websocket.turn_types import NotAdmitted
from services.gateway.websocket.turns import SocketTurns

log = structlog.get_logger()

Pump = Callable[[], Awaitable["End | None"]]

FAREWELL_S = 5.0  # for a client to read the last error events
_FAULT = Verdict(kind="fault", cause="broke off")
_LATE = Verdict(kind="fault", cause="timeout")
# Codes that no close frame carries (RFC 6455 section 7.4.1).
_RESERVED = (
    CloseCode.NO_STATUS_RCVD,
    CloseCode.ABNORMAL_CLOSURE,
    CloseCode.TLS_HANDSHAKE,
)


@dataclass(frozen=True, slots=True)
class End:
    """How a relay ends, and the result of the requests that were running."""

    code: int  # of the client's close frame
    reason: str = ""
    problem: Problem | None = None  # sent to the client for each running request
    outcome: str = "failed"
    verdict: Verdict = NEUTRAL


RESTARTING = End(
    CloseCode.SERVICE_RESTART, "restarts", errors.socket_restarts(), "interrupted"
)


class SocketRelay:
    """Relays until either side closes or `finish` is called."""

    def __init__(self, client: ClientSocket, requests: SocketTurns) -> None:
        self._client = client
        self._upstream = requests.connection
        self._pumps: list[asyncio.Task[None]] = []
        self._requests = requests
        self._loop = asyncio.get_running_loop()
        self._end: asyncio.Future[End] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._draining = False

    def finish(self, end: End) -> None:
        """End the relay. Only the first call counts."""
        if not self._end.done():
            self._end.set_result(end)

    def drain(self) -> None:
        """End the relay as soon as no request is running: the gateway restarts."""
        self._draining = True
        if not self._requests.running:
            self.finish(RESTARTING)

    async def run(self) -> None:
        """Relay. On return both sockets are closed and all requests settled."""
        end = End(CloseCode.GOING_AWAY, outcome="cancelled")  # if this is canceled
        try:
            self._client.accept()
            self._start(self._pump_up)
            self._start(self._pump_down)
            end = await self._end
        finally:
            self._set_timer(None)
            for pump in self._pumps:
                pump.cancel()
            await asyncio.gather(*self._pumps, return_exceptions=True)
            await self._close(end)

    # Messages ----------------------------------------------------------------

    def _start(self, pump: Pump) -> None:
        self._pumps.append(asyncio.create_task(self._until_end(pump)))

    async def _until_end(self, pump: Pump) -> None:
        try:
            end = await pump()
        except Exception:
            log.exception("relay of a socket failed", action="socket_failed")
            problem = errors.internal()
            end = End(CloseCode.INTERNAL_ERROR, "internal error", problem)
        if end is not None:
            self.finish(end)

    async def _pump_up(self) -> End | None:
        while True:
            message = await self._client.receive()
            if isinstance(message, Closed):
                return End(CloseCode.NORMAL_CLOSURE, outcome="cancelled")
            try:
                turn = await self._requests.begin(message)
            except OwnerGone:
                problem = errors.socket_broke("belongs to a key that was removed")
                return End(CloseCode.SERVICE_RESTART, "key removed", problem)
            except NotAdmitted as refused:
                await self._client.send(error_frame(refused.problem, refused.lane))
                continue
            self._set_timer(self._requests.deadline)
            await self._follow(self._requests.connection)
            if turn is not None:
                message = turn.frame
                self._requests.sent(turn)
            try:
                await self._upstream.send(message)
            except ConnectionClosed:
                return None  # `_pump_down` may still have messages to relay

    async def _pump_down(self) -> End:
        key = self._requests.upstream_key
        while True:
            try:
                message = key.masked_frame(await self._upstream.recv())
            except ConnectionClosed as closed:
                return _end_of_upstream(closed, key)
            # Before the client can see it: after its answer it may leave at once.
            reading = self._requests.note(message)
            if reading is not None:
                await reading
            self._set_timer(self._requests.deadline)
            await self._client.send(message)
            if self._draining:
                self.drain()

    async def _follow(self, upstream: ClientConnection) -> None:
        """Switch to `upstream` if the first request moved there. Nothing was sent on
        the old connection yet."""
        if upstream is self._upstream:
            return
        old, self._upstream = self._upstream, upstream
        pump_down = self._pumps.pop()
        pump_down.cancel()
        await asyncio.gather(pump_down, return_exceptions=True)
        self._start(self._pump_down)
        try:
            await old.close()
        finally:
            old.transport.abort()

    # Timeouts ----------------------------------------------------------------

    def _set_timer(self, deadline: float | None) -> None:
        if self._timer is not None:
            if self._timer.when() == deadline:
                return
            self._timer.cancel()
        self._timer = None
        if deadline is not None:
            self._timer = self._loop.call_at(deadline, self._time_out)

    def _time_out(self) -> None:
        code = CloseCode.INTERNAL_ERROR
        if self._client.stalled:
            # This says nothing about the upstream.
            self.finish(End(code, "client stalled", errors.client_stalled()))
        else:
            late = errors.socket_broke("gave no answer in time")
            self.finish(End(code, "timeout", late, verdict=_LATE))

    # Ends --------------------------------------------------------------------

    async def _close(self, end: End) -> None:
        """Settle the running requests, tell the client, close both sockets."""
        ended = self._requests.end_all(end.outcome, end.problem, end.verdict)
        try:
            if end.problem is not None:
                async with asyncio.timeout(FAREWELL_S):
                    for turn in ended:
                        await self._client.send(error_frame(end.problem, turn.lane))
        except TimeoutError:
            log.debug("client did not read its last events", action="client_stalled")
        finally:
            self._client.close(end.code, end.reason)
            restarts = end.code == CloseCode.SERVICE_RESTART
            await self._upstream.close(
                CloseCode.SERVICE_RESTART if restarts else CloseCode.NORMAL_CLOSURE
            )


def _end_of_upstream(closed: ConnectionClosed, key: SentKey) -> End:
    sent, received = closed.sent, closed.rcvd
    if received is None:
        if sent is not None and sent.code == CloseCode.MESSAGE_TOO_BIG:
            problem = errors.socket_broke("sent more than this gateway accepts")
            return End(CloseCode.MESSAGE_TOO_BIG, "event too large", problem)
        code, reason = int(CloseCode.INTERNAL_ERROR), "upstream broke off"
    else:
        code, reason = received.code, key.hidden(received.reason)
        if code in _RESERVED:
            code = CloseCode.NORMAL_CLOSURE
    return End(code, reason, errors.socket_broke("broke off"), verdict=_FAULT)
