"""Relays messages between a client's socket and an upstream's until either ends."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import structlog
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from libs.common.headers import Header
from libs.common.providers.key_echoes import SentKey
from libs.common.upstream_answers.verdicts import Verdict
from services.gateway import errors
from services.gateway.errors import Problem, error_frame
from services.gateway.ledger.record import NEUTRAL
from services.gateway.websocket.client import ClientSocket, Closed
from services.gateway.websocket.frames import Message
from services.gateway.websocket.turn_events import Noted
from services.gateway.websocket.turn_types import NotAdmitted, Turn
from services.gateway.websocket.turns import SocketTurns
from services.gateway.websocket.upstream import Opened

log = structlog.get_logger()

Pump = Callable[[], Awaitable["End | None"]]

# How long the events before a response's output are held, because an error may follow
# for which another resource is tried.
HOLD_S = 0.2
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


LEFT = End(CloseCode.NORMAL_CLOSURE, outcome="cancelled")
RESTARTING = End(
    CloseCode.SERVICE_RESTART, "restarts", errors.socket_restarts(), "interrupted"
)


class SocketRelay:
    """Relays until either side closes or `finish` is called. The client's socket stays
    when its turns go to another upstream socket."""

    def __init__(
        self, client: ClientSocket, requests: SocketTurns, headers: Sequence[Header]
    ) -> None:
        """`headers`: of the answer to the client's upgrade."""
        self._client = client
        self._headers = headers
        self._requests = requests
        self._tasks: set[asyncio.Task[None]] = set()
        # The upstream's sockets: the one that the next turn prefers, and older ones
        # until their turns have ended.
        self._pumps: dict[Opened, asyncio.Task[None]] = {}
        self._closing: set[Opened] = set()
        self._loop = asyncio.get_running_loop()
        self._end: asyncio.Future[End] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._draining = False
        self._busy = False  # with a message of the client, which may take a while
        client.closed.add_done_callback(self._left)

    def _left(self, _: object) -> None:
        """The client's connection ended. Its last messages are read first."""
        if self._busy:
            self.finish(LEFT)

    def finish(self, end: End) -> None:
        """End the relay. Only the first call counts."""
        if not self._end.done():
            self._end.set_result(end)

    def keep_alive(self) -> None:
        """Send a ping if the client got nothing since the last call."""
        self._client.keep_alive()

    def drain(self) -> None:
        """End the relay as soon as no request is running: the gateway restarts."""
        self._draining = True
        if not self._requests.running:
            self.finish(RESTARTING)

    async def run(self) -> None:
        """Relay. On return all sockets are closed and all requests settled."""
        end = End(CloseCode.GOING_AWAY, outcome="cancelled")  # if this is canceled
        raised: BaseException | None = None
        try:
            self._client.accept(self._headers)
            self._start(self._pump_up)
            self._listen(self._requests.upstream)
            end = await self._end
        except BaseException as error:  # noqa: BLE001 - raised below
            raised = error
        # What follows waits, so it is in no `finally` (docs/adr/0011-mypyc.md).
        self._set_timer(None)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Settle the running requests, tell the client, close both sockets.
        ended = self._requests.end_all(end.outcome, end.problem, end.verdict)
        try:
            await self._say_farewell(end, ended)
        except BaseException as error:  # noqa: BLE001 - raised below
            raised = error
        await self._close(end)
        if raised is not None:
            raise raised

    # Messages ----------------------------------------------------------------

    def _start(self, pump: Pump) -> asyncio.Task[None]:
        task = asyncio.create_task(self._until_end(pump))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

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
                return LEFT
            if self._end.done():  # the client may ask again elsewhere
                return None
            self._busy = True
            await self._pass_up(message)
            self._busy = False
            if self._client.closed.done():
                return LEFT

    async def _pass_up(self, message: Message) -> None:
        turn = refusal = None
        try:
            turn = await self._requests.begin(message)
        except NotAdmitted as refused:
            refusal = refused.frame
        if refusal is not None:
            await self._client.send(refusal)
        elif turn is not None:
            await self._send(turn)
        else:
            with suppress(ConnectionClosed):  # `_pump_down` tells the client
                await self._requests.upstream.connection.send(message)

    async def _send(self, turn: Turn) -> None:
        """Send a turn's frame to the socket that it was placed on."""
        await self._requests.in_order(turn)
        upstream = turn.upstream
        assert upstream is not None
        self._set_timer(self._requests.deadline)
        self._listen(upstream)
        self._let_go()
        self._requests.sent(turn)
        with suppress(ConnectionClosed):  # `_pump_down` finds the turn
            await upstream.connection.send(turn.frame)

    async def _pump_down(self, upstream: Opened) -> End | None:
        key, events = upstream.target.sent, self._requests.events
        while True:
            try:
                message = key.masked_frame(await upstream.connection.recv())
            except ConnectionClosed as closed:
                end = _end_of_upstream(closed, key)
                break
            # Before the client can see it: after its answer it may leave at once.
            noted = events.note(upstream, message)
            if not isinstance(noted, Noted):
                noted = await noted
            if noted.turn is not None:
                self._keep_back(noted.turn, holds=noted.holds)
                continue
            self._set_timer(self._requests.deadline)
            for held in noted.first:
                await self._client.send(held)
            await self._client.send(message)
            if self._draining:
                self.drain()
            self._let_go()
        self._pumps.pop(upstream, None)
        return await self._lost(upstream, end)

    def _keep_back(self, turn: Turn, *, holds: bool) -> None:
        """An event that the client does not see, or not yet."""
        if not holds:
            self._try_again(turn)
        elif len(turn.held) == 1:
            self._loop.call_later(HOLD_S, self._release, turn)

    def _release(self, turn: Turn) -> None:
        """The output takes its time: the client gets what was held."""
        if turn in self._requests.running:
            for held in self._requests.events.released(turn):
                self._client.write(held)

    # Upstream sockets --------------------------------------------------------

    def _listen(self, upstream: Opened) -> None:
        if upstream not in self._pumps:
            pump = partial(self._pump_down, upstream)
            self._pumps[upstream] = self._start(pump)

    def _let_go(self) -> None:
        """Close sockets that no turn needs any more."""
        if len(self._pumps) == 1:
            return
        for upstream in [u for u in self._pumps if not self._requests.needs(u)]:
            self._pumps.pop(upstream).cancel()
            self._closing.add(upstream)
            self._start(partial(self._close_unused, upstream))

    async def _close_unused(self, upstream: Opened) -> None:
        try:
            await upstream.connection.close()
        finally:
            upstream.connection.transport.abort()
        self._closing.discard(upstream)

    def _try_again(self, turn: Turn) -> None:
        self._requests.again(turn)
        self._start(partial(self._place_and_send, turn))

    async def _place_and_send(self, turn: Turn) -> None:
        refusal = None
        try:
            await self._requests.place(turn)
        except NotAdmitted as refused:
            refusal = refused.frame
        if refusal is None:
            await self._send(turn)
            return
        self._set_timer(self._requests.deadline)
        await self._client.send(refusal)
        if self._draining:
            self.drain()

    async def _lost(self, upstream: Opened, end: End) -> End | None:
        """An upstream's socket ended. Its turns go elsewhere if the client saw nothing
        of their answers yet."""
        requests = self._requests
        here = upstream is requests.upstream
        turns = [turn for turn in requests.running if turn.runs_on(upstream)]
        if not turns:
            return end if here and not requests.running else None
        lost = end.verdict is not _FAULT or any(turn.shown for turn in turns)
        if here and lost:
            return end
        for turn in turns:
            again = not turn.shown and end.verdict is _FAULT
            if again and requests.events.broke(turn, "it closed the WebSocket"):
                self._try_again(turn)
            else:
                await self._fail(turn, end)
        return None

    async def _fail(self, turn: Turn, end: End) -> None:
        self._requests.end(turn, end.outcome, end.problem, end.verdict)
        assert end.problem is not None
        await self._client.send(error_frame(end.problem, turn.lane))

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

    async def _say_farewell(self, end: End, ended: Sequence[Turn]) -> None:
        """Send the client the error of each turn that was running."""
        if end.problem is None:
            return
        try:
            async with asyncio.timeout(FAREWELL_S):
                for turn in ended:
                    await self._client.send(error_frame(end.problem, turn.lane))
        except TimeoutError:
            log.debug("client did not read its last events", action="client_stalled")

    async def _close(self, end: End) -> None:
        self._client.close(end.code, end.reason)
        restarts = end.code == CloseCode.SERVICE_RESTART
        code = CloseCode.SERVICE_RESTART if restarts else CloseCode.NORMAL_CLOSURE
        open_ = {*self._pumps, *self._closing, self._requests.upstream}
        await asyncio.gather(*(upstream.connection.close(code) for upstream in open_))


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
