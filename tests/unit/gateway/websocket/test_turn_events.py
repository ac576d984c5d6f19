"""What an event of an upstream makes of the turn that it belongs to."""

import json
from pathlib import Path
from typing import Any

import pytest

from libs.common.routing.types import Decision
from services.gateway.proxy.steps import Phase
from services.gateway.websocket.turn_events import (
    MOST_HELD,
    PASSES,
    Noted,
    TurnEvents,
)
from services.gateway.websocket.turn_types import Turn
from services.gateway.websocket.upstream import Opened
from tests.support.clients.websocket_peer import Peer
from tests.support.memory.clock import timeless
from tests.support.memory.plane import World
from tests.support.memory.twin import Twin, resource

CREATED = {"type": "response.created", "response": {"id": "resp_1"}}
OUTPUT = {"type": "response.output_item.added"}
DONE = {"type": "response.completed", "response": {"id": "resp_1"}}


class Socket:
    """An upstream's socket that leads to a, and the turns that run on it."""

    def __init__(self, world: World, *, replays: bool = False) -> None:
        self.world = world
        self.running: list[Turn] = []
        self.settled: list[Turn] = []
        self.upstream = Opened(None, world.catalogue.targets["a"])  # type: ignore[arg-type]
        self.events = TurnEvents(
            self.running,
            world.in_flight,
            world.context.reader,
            self._settle,
            replays=replays,
        )

    def _settle(self, turn: Turn) -> None:
        self.running.remove(turn)
        self.settled.append(turn)

    def runs(self, lane: str | None = None) -> Turn:
        """A turn whose frame was sent."""
        life = self.world.in_flight.arrived_on_socket(Peer().request())
        life.on_socket("a")
        life.acquired(Decision("a", "socket", "v"), "account-a", 1)
        life.sent(life.began)
        turn = Turn(life, lane, 0.0, "{}", None, upstream=self.upstream)
        self.running.append(turn)
        return turn

    def note(self, event: dict[str, Any]) -> Noted:
        noted = self.events.note(self.upstream, json.dumps(event))
        assert isinstance(noted, Noted)
        return noted


async def made(root: Path, *, replays: bool = False) -> Socket:
    world = World(root, Twin(resource("a"), resource("b")))
    await world.catalogue.refresh()
    return Socket(world, replays=replays)


def error(status: int | None = 500, code: str | None = None) -> dict[str, Any]:
    said: dict[str, Any] = {"type": "error", "error": {"code": code, "message": "x"}}
    return said if status is None else said | {"status": status}


@timeless
async def test_an_event_of_no_turn_passes(tmp_path: Path) -> None:
    socket = await made(tmp_path)
    assert socket.note(error()) is PASSES
    socket.runs("one")
    assert socket.note(error() | {"stream_id": "two"}) is PASSES


@timeless
async def test_the_beginning_is_held_until_the_output(tmp_path: Path) -> None:
    socket = await made(tmp_path)
    turn = socket.runs()
    assert socket.note(CREATED) == Noted(turn=turn, holds=True)
    assert socket.note({"type": "codex.rate_limits"}).holds
    assert (turn.shown, turn.life.record.response_bytes) == (False, 0)
    noted = socket.note(OUTPUT)
    assert [json.loads(frame)["type"] for frame in noted.first] == [
        "response.created",
        "codex.rate_limits",
    ]
    assert (turn.shown, noted.turn) == (True, None)
    assert turn.life.record.response_bytes > 0
    assert socket.note(CREATED) is PASSES
    socket.note(DONE)
    assert socket.settled == [turn]


@timeless
async def test_few_events_are_held_at_once(tmp_path: Path) -> None:
    socket = await made(tmp_path)
    turn = socket.runs()
    assert all(socket.note(CREATED).holds for _ in range(MOST_HELD))
    noted = socket.note(CREATED)
    assert (len(noted.first), noted.turn) == (MOST_HELD, None)
    assert (turn.held, turn.shown) == ([], True)


@timeless
async def test_a_response_without_output_ends_whole(tmp_path: Path) -> None:
    socket = await made(tmp_path)
    turn = socket.runs()
    socket.note(CREATED)
    assert len(socket.note(DONE).first) == 1
    assert socket.settled == [turn]
    assert turn.life.record.minted == ("resp_1",)


@pytest.mark.parametrize(
    ("event", "cause"),
    [
        (error(429), "rate_limited"),
        (error(429, "insufficient_quota"), "insufficient_quota"),
        (error(401), "key_refused"),
        (error(403, "model_not_found"), "model_refused"),
        (error(503, "server_is_overloaded"), "server_error"),
        (error(None, "rate_limit_exceeded"), "rate_limited"),
        (
            {"type": "response.failed", "response": {"error": {"code": "slow_down"}}},
            "server_error",
        ),
    ],
)
@timeless
async def test_an_error_before_the_output_sends_the_turn_elsewhere(
    tmp_path: Path, event: dict[str, Any], cause: str
) -> None:
    socket = await made(tmp_path)
    turn = socket.runs()
    socket.note(CREATED)
    assert socket.note(event) == Noted(turn=turn)
    life = turn.life
    assert (life.cause, life.tried, life.phase) == (cause, ("a",), Phase.ADMITTED)
    assert (turn.held, turn.created, turn.answered) == ([], b"", False)
    assert (life.retried, life.judged, socket.settled) == (True, True, [])
    assert len(socket.world.twin.released) == 1


@pytest.mark.parametrize(
    "event",
    [
        error(400, "previous_response_not_found"),
        error(400, "invalid_encrypted_content"),
        error(None, "websocket_connection_limit_reached"),
        {"type": "response.failed", "response": {"error": {"code": "invalid_prompt"}}},
    ],
)
@timeless
async def test_an_error_that_no_other_resource_mends_passes(
    tmp_path: Path, event: dict[str, Any]
) -> None:
    socket = await made(tmp_path)
    turn = socket.runs()
    assert socket.note(event).turn is None
    assert socket.settled == [turn]
    assert turn.life.record.outcome == "failed"


@timeless
async def test_an_error_passes_once_the_output_began(tmp_path: Path) -> None:
    socket = await made(tmp_path)
    turn = socket.runs()
    socket.note(OUTPUT)
    assert socket.note(error(429)) is PASSES
    assert socket.settled == [turn]


@timeless
async def test_a_turn_is_not_overtaken_by_the_next_of_its_lane(tmp_path: Path) -> None:
    socket = await made(tmp_path)
    first = socket.runs("one")
    socket.runs("two")
    socket.runs("one")
    assert socket.note(error(429) | {"stream_id": "one"}).turn is None
    assert socket.settled == [first]


@pytest.mark.parametrize("conversation", [False, True])
@timeless
async def test_a_lost_socket_sends_turns_elsewhere_that_may_be_repeated(
    tmp_path: Path, conversation: bool
) -> None:
    socket = await made(tmp_path)
    turn = socket.runs()
    hints, ids = turn.life.hints, ("conv_1",) if conversation else ()
    turn.life.admit(b"/responses", type(hints)(bound_ids=ids), None)
    turn.life.sent(0.0)
    assert socket.events.broke(turn, "it closed") is not conversation
    assert turn.life.cause == ("" if conversation else "connection_lost")


@timeless
async def test_the_first_event_ends_a_trial(tmp_path: Path) -> None:
    socket = await made(tmp_path)
    turn = socket.runs()
    trial = Decision("a", "socket", "v", trial=True)
    turn.life.acquired(trial, "account-a", 1)
    turn.life.sent(0.0)
    socket.note(OUTPUT)
    (release,) = socket.world.twin.released
    assert release.verdict is not None
    assert (release.verdict.kind, release.event) == ("ok", None)
