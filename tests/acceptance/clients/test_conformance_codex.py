"""Codex through a gateway, over HTTP and WebSocket: what test_codex.py and
test_codex_socket.py do not cover."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients.codex import Codex
from tests.support.clients.conformance import (
    compressed_and_read,
    outcomes,
    refuse_once,
)
from tests.support.processes.stack import Stack
from tests.support.processes.waiting import eventually

pytest_plugins = ["tests.support.processes.standing"]
pytestmark = pytest.mark.asyncio(loop_scope="module")
TURN_STATE = "x-codex-turn-state"


@pytest.fixture
def http(stack: Stack, tmp_path: Path) -> Codex:
    return Codex(stack.url, tmp_path)


@pytest.fixture
def socket(stack: Stack, tmp_path: Path) -> Codex:
    return Codex(stack.url, tmp_path, "true")


class TestHttp:
    async def test_it_waits_as_long_as_a_429_asks(
        self, stack: Stack, http: Codex
    ) -> None:
        await refuse_once(stack)
        turn = await asyncio.to_thread(http.exec, "hello")
        assert turn.status == 0, turn.shown
        assert "Simulated answer" in turn.said
        assert await outcomes(stack, 2) == ["failed", "completed"]
        assert pause_s(*await stack.events("request")) >= 1

    async def test_a_compressed_stream(self, stack: Stack, http: Codex) -> None:
        await stack.fault(times=None, compress=True)
        turn = await asyncio.to_thread(http.exec, "hello")
        assert turn.status == 0, turn.shown
        assert "Simulated answer" in turn.said
        assert await outcomes(stack, 1) == ["completed"]
        assert await compressed_and_read(stack)

    async def test_turn_state_returns_within_its_turn_to_the_key_that_gave_it(
        self, stack: Stack, http: Codex
    ) -> None:
        await stack.fault(headers={TURN_STATE: "first"})
        await stack.fault(headers={TURN_STATE: "later"})
        turn = await asyncio.to_thread(http.exec, "please run-tool")
        assert turn.status == 0, turn.shown
        again = await asyncio.to_thread(http.resume, turn.session, "and again")
        assert again.status == 0, again.shown
        gave, returned, next_turn = stack.journal()
        states = [
            dict(entry["headers"]).get(TURN_STATE)
            for entry in (gave, returned, next_turn)
        ]
        assert states == [None, "first", None]
        assert returned["key"] == gave["key"]

    async def test_it_asks_again_when_a_stream_is_cut(
        self, stack: Stack, http: Codex
    ) -> None:
        await stack.fault(cut_after=3)
        turn = await asyncio.to_thread(http.exec, "hello")
        assert turn.status == 0, turn.shown
        assert "Simulated answer" in turn.said
        assert await outcomes(stack, 2) == ["failed", "completed"]

    async def test_a_turn_that_is_interrupted_is_cancelled(
        self, stack: Stack, http: Codex
    ) -> None:
        await stack.fault(times=None, stall_after=2)
        await interrupted(stack, http)
        assert await outcomes(stack, 1) == ["cancelled"]


class TestWebSocket:
    async def test_it_waits_as_long_as_a_429_asks(
        self, stack: Stack, socket: Codex
    ) -> None:
        # Its warm-up is refused too, each by three keys; Codex continues without it.
        await stack.fault(times=6, status=429, headers={"retry-after": "1"})
        turn = await asyncio.to_thread(socket.exec, "hello")
        assert turn.status == 0, turn.shown
        assert "Simulated answer" in turn.said
        rows = await stack.events("request")
        assert [row["status_code"] for row in rows[:3]] == [429, 429, 200]
        assert {row["transport"] for row in rows} == {"ws"}
        assert pause_s(rows[1], rows[2]) >= 1

    async def test_turn_state_returns_within_its_turn_to_the_key_that_gave_it(
        self, stack: Stack, socket: Codex, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = stack.simulator.state.journal
        monkeypatch.setattr(journal, "keep_bodies", True)
        # The warm-up gives it. The socket breaks within the turn's first output.
        await stack.fault(metadata={TURN_STATE: "first"})
        await stack.fault(metadata={TURN_STATE: "later"}, ws_cut_after=4)
        turn = await asyncio.to_thread(socket.exec, "please run-tool")
        assert turn.status == 0, turn.shown
        entries = journal.shown(None, bodies=True)["entries"]
        frames = [entry for entry in entries if entry["method"] == "WS"]
        assert [state_in(frame) for frame in frames] == [None, *["first"] * 3]
        assert len({entry["key"] for entry in entries}) == 1

    async def test_an_error_is_shown_with_its_message(
        self, stack: Stack, socket: Codex
    ) -> None:
        await stack.fault(times=None, status=400, code="odd", message="Odd, it says.")
        turn = await asyncio.to_thread(socket.exec, "hello")
        assert turn.status != 0
        assert "Odd, it says." in turn.shown

    async def test_a_turn_that_is_interrupted_is_cancelled(
        self, stack: Stack, socket: Codex
    ) -> None:
        await stack.fault(times=None, stall_after=2)
        await interrupted(stack, socket)
        assert await outcomes(stack, 1) == ["cancelled"]


def state_in(frame: dict[str, Any]) -> str | None:
    """The turn state that a frame returns."""
    metadata = json.loads(base64.b64decode(frame["body"]))["client_metadata"]
    state: str | None = metadata.get(TURN_STATE)
    return state


def pause_s(first: dict[str, Any], second: dict[str, Any]) -> float:
    """Seconds between the end of one request and the start of the next."""
    return float(second["created_at_ms"] - first["completed_at_ms"]) / 1000


async def interrupted(stack: Stack, codex: Codex) -> None:
    """A turn that the user interrupts after its answer has begun."""
    process = await codex.start("hello")
    try:

        async def begun() -> bool:
            entries = [e for e in stack.journal() if e["path"] == "/v1/responses"]
            return any(e["method"] != "GET" and e["status"] == 200 for e in entries)

        await eventually(begun)
        process.terminate()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
