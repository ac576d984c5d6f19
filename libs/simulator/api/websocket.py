"""WebSockets on /v1/responses: frames, events, lanes and the connection's memory."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass

from aiohttp import WSMsgType, web

from libs.simulator import bodies
from libs.simulator.api import errors
from libs.simulator.api.create_request import parse
from libs.simulator.api.errors import ApiError
from libs.simulator.api.events import is_terminal
from libs.simulator.api.responses import turn_events
from libs.simulator.api.turns import Turn, Turns
from libs.simulator.exchange import Gate, Recorded, scripted
from libs.simulator.faults.delivery import reset, scripted_body, until_client_leaves
from libs.simulator.faults.faults import NO_FAULT, Fault
from libs.simulator.settings import MAX_BODY_BYTES
from libs.simulator.state.accounts import Account
from libs.simulator.state.journal import Entry
from libs.simulator.state.threads import Thread
from libs.simulator.wire import Json, encode

_MAX_LANES = 32
# Frames that some clients send and that get no answer.
_SILENT = ("response.processed",)

Lane = str | None


class SocketMemory:
    """The latest response of each lane, which can be continued without being stored."""

    def __init__(self) -> None:
        self.threads: dict[str, Thread] = {}
        self._latest: dict[Lane, str] = {}

    def remember(self, lane: Lane, response_id: str, thread: Thread) -> None:
        self.threads.pop(self._latest.get(lane, ""), None)
        self._latest[lane] = response_id
        self.threads[response_id] = thread

    def drop(self, response_id: str | None) -> None:
        """A failed turn also removes the response it continued."""
        self.threads.pop(response_id or "", None)


class Sockets:
    """Accepts WebSockets."""

    def __init__(self, gate: Gate, turns: Turns) -> None:
        self._gate = gate
        self._turns = turns

    async def connect(self, request: web.Request) -> web.StreamResponse:
        entry = self._gate.opened_entry(request, b"")
        with Recorded(self._gate.journal, entry):
            return await self._connected(request, entry)

    async def _connected(
        self, request: web.Request, entry: Entry
    ) -> web.StreamResponse:
        started = time.monotonic()
        account, fault = None, NO_FAULT
        try:
            account = self._gate.accounts.admit(entry.key, request.headers)
            entry.account = account.name
            fault = self._gate.faults.take(entry.key, entry.path, None, "upgrade")
            refused = scripted(_as_status(fault), entry, account)
        except ApiError as problem:
            refused = problem
        headers = {**self._gate.headers(account, started), **fault.headers}
        if account is None or refused:
            return self._refused(refused or errors.no_key(), fault, headers, entry)

        socket = web.WebSocketResponse(
            compress=False, max_msg_size=MAX_BODY_BYTES, decode_text=False
        )
        socket.headers.update(headers)
        await socket.prepare(request)
        entry.answered(101, socket.headers.items())
        session = Session(self._gate, self._turns, request, socket, account)
        await session.run()
        return socket

    def _refused(
        self, problem: ApiError, fault: Fault, headers: dict[str, str], entry: Entry
    ) -> web.Response:
        body, content_type = scripted_body(fault, self._gate.envelope(problem))
        entry.sent(body)
        entry.answered(problem.status, headers.items())
        return web.Response(
            status=problem.status, body=body, headers=headers, content_type=content_type
        )


class Session:
    """One WebSocket connection."""

    def __init__(
        self,
        gate: Gate,
        turns: Turns,
        request: web.Request,
        socket: web.WebSocketResponse,
        account: Account,
    ) -> None:
        self._gate = gate
        self._turns = turns
        self._request = request
        self._socket = socket
        self._account = account
        self._memory = SocketMemory()
        self._lanes: dict[Lane, asyncio.Queue[bytes]] = {}

    async def run(self) -> None:
        """Read until the client closes. Each lane answers its frames in order."""
        async with asyncio.TaskGroup() as group:
            workers = []
            async for message in self._socket:
                if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                    break
                lane = _lane(message.data)
                if lane not in self._lanes:
                    # A frame over the lane limit is refused on the unnamed lane.
                    lane = lane if self._has_room else None
                if lane not in self._lanes:
                    self._lanes[lane] = asyncio.Queue()
                    workers.append(group.create_task(self._work(self._lanes[lane])))
                self._lanes[lane].put_nowait(message.data)
            for worker in workers:
                worker.cancel()

    @property
    def _has_room(self) -> bool:
        return len([lane for lane in self._lanes if lane]) < _MAX_LANES

    async def _work(self, frames: asyncio.Queue[bytes]) -> None:
        while True:
            raw = await frames.get()
            entry = Entry(
                key=self._gate.opened_entry(self._request, b"").key,
                method="WS",
                target=self._request.raw_path,
                headers=[],
                body=raw,
                account=self._account.name,
                stream=True,
            )
            try:
                with Recorded(self._gate.journal, entry):
                    await self._answer(raw, entry)
            except ConnectionError:
                return

    async def _answer(self, raw: bytes, entry: Entry) -> None:
        lane, fault = _lane(raw), NO_FAULT
        try:
            body = bodies.parsed(raw)
            # A key may be revoked while its connections are open.
            self._gate.accounts.of(entry.key)
            entry.asked(body)
            entry.stream = True
            if body.get("type") in _SILENT:
                return
            if lane and lane not in self._lanes:
                raise _too_many_lanes()
            fault = self._gate.faults.take(entry.key, entry.path, entry.model, "frame")
            await self._create(body, fault, Outlet(self, entry, fault, lane))
        except ApiError as problem:
            self._memory.drop(entry.previous_response_id)
            frame: Json = {"type": "error", "status": problem.status}
            frame["error"] = self._gate.dialect.error(problem)
            told = self._gate.rates.headers(
                self._account.name, entry.model, problem.status
            )
            if told or fault.headers:
                frame["headers"] = told | fault.headers
            entry.answered(problem.status)
            await self.send(frame, entry, lane)

    async def _create(self, body: Json, fault: Fault, outlet: "Outlet") -> None:
        if body.get("type") != "response.create":
            raise errors.invalid("type", f"{body.get('type')!r} is not supported")
        if await self._broken(fault):
            return
        refused = scripted(fault, outlet.entry, self._account)
        if refused:
            raise refused
        entry = outlet.entry
        self._gate.dialect.check_model(entry.model)
        self._gate.rates.take(self._account.name, entry.model, body, entry.body_size)
        ask = parse(body)
        if ask.background:
            raise errors.invalid("background", "it is unsupported over WebSocket")
        turn = self._turns.prepare(self._account, ask, fault.fate, self._memory.threads)
        outlet.entry.response_id = turn.response_id
        try:
            await self._gate.holding.pass_by(outlet.entry.key)
            await asyncio.sleep(fault.delay_ms / 1000)
            outlet.entry.answered(200)
            await outlet.send_all(turn_events(turn, fault), turn)
        finally:
            self._turns.release(turn)

    async def _broken(self, fault: Fault) -> bool:
        if fault.timeout is True:
            await until_client_leaves()
        elif fault.timeout:
            await asyncio.sleep(fault.timeout)
        if fault.reset or fault.timeout or fault.garbage:
            self.break_off()
            return True
        return False

    def break_off(self) -> None:
        reset(self._request)

    async def close(self) -> None:
        await self._socket.close()

    async def send(self, event: Json, entry: Entry, lane: Lane) -> None:
        frame = encode(event if lane is None else {**event, "stream_id": lane})
        entry.sent(frame)
        await self._socket.send_frame(frame, WSMsgType.TEXT)

    def finished(self, turn: Turn, lane: Lane) -> None:
        """Called before the terminal event: remember what the client may continue
        from."""
        self._turns.commit(turn)
        if turn.response["status"] == "failed":
            self._memory.drop(turn.ask.previous_id)
        else:
            self._memory.remember(lane, turn.response_id, turn.thread)


@dataclass(frozen=True)
class Outlet:
    """Sends the events of one turn, and stops where a fault says so."""

    session: Session
    entry: Entry
    fault: Fault
    lane: Lane

    async def send_all(self, events: Iterator[Json], turn: Turn) -> None:
        for sent, event in enumerate(events):
            if await self._ends_after(sent):
                return
            if is_terminal(event) and event["type"] != "error":
                self.session.finished(turn, self.lane)
            await self.session.send(event, self.entry, self.lane)

    async def _ends_after(self, sent: int) -> bool:
        fault = self.fault
        if sent and fault.event_gap_ms:
            await asyncio.sleep(fault.event_gap_ms / 1000)
        if fault.stall_after == sent:
            await until_client_leaves()
        if fault.cut == sent:
            self.session.break_off()
            return True
        if fault.end_after == sent:
            await self.session.close()
            return True
        return False


def _lane(raw: bytes) -> Lane:
    try:
        lane = bodies.parsed(raw).get("stream_id")
    except ApiError:
        return None
    return lane if isinstance(lane, str) and lane else None


def _too_many_lanes() -> ApiError:
    return ApiError(
        400,
        f"A connection may have at most {_MAX_LANES} streams.",
        code="websocket_stream_limit_reached",
        param="stream_id",
    )


def _as_status(fault: Fault) -> Fault:
    """A refused upgrade is answered like a status fault."""
    return Fault(
        status=fault.ws_refuse,
        revoked=fault.revoked,
        code=fault.code,
        message=fault.message,
    )
