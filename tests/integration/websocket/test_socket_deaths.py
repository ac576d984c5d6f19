"""Two hundred conversations over WebSockets while keys die: with 401, without money,
rate limited, reset. While a key can serve, no client sees an error that is fatal to
it; and the ledger, the leases and the upstream's journal agree to the last attempt."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from libs.simulator.faults.faults import Faults, parse_script
from tests.support.processes.stack import Stack, gateway_stack
from tests.support.processes.waiting import eventually

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(300)]
MODEL = "gpt-5.5"
CODEX, PLAIN, TURNS = 100, 100, 5
ENDS = ("response.completed", "response.failed", "response.incomplete", "error")
INCLUDE = ["reasoning.encrypted_content"]
RECONNECTS = 5  # of Codex, before it gives WebSockets up
# What Codex does at an error event (docs/upstream-api.md): it starts anew at these
# codes and statuses, waits at a 429 that says how long, and fails at all others.
ANEW_CODES = ("previous_response_not_found", "websocket_connection_limit_reached")
ANEW_STATUSES = (401, 500, 502)
# The keys that die, after this share of all turns, and how. Each account keeps a key
# that serves, or will in a second.
DEATHS: list[tuple[float, str, dict[str, Any], int | None]] = [
    (0.1, "sk-sim-a1", {"status": 429, "code": "insufficient_quota"}, None),
    (0.3, "sk-sim-b1", {"revoked": True}, None),
    (0.5, "sk-sim-b2", {"reset": True}, 2),
    (0.7, "sk-sim-a2", {"status": 429, "headers": {"retry-after": "1"}}, 2),
]


class Progress:
    """What all clients have seen. They take turns together, so that each death meets
    conversations that go on."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._deaths = list(DEATHS)
        self.next_turn = asyncio.Barrier(CODEX + PLAIN)
        self.done = 0
        self.events: Counter[str] = Counter()

    def finished(self) -> None:
        self.done += 1
        if self._deaths and self.done >= self._deaths[0][0] * (CODEX + PLAIN) * TURNS:
            _, key, fault, times = self._deaths.pop(0)
            script = {"fault": fault, "key": key, "times": times}
            self._faults.add(parse_script(script))


@asynccontextmanager
async def socket(stack: Stack, session: str) -> AsyncIterator[ClientConnection]:
    url = stack.url.replace("http", "ws", 1) + "/responses"
    headers = {"session-id": session}
    async with connect(
        url, additional_headers=headers, proxy=None, compression=None
    ) as opened:
        yield opened


async def ask(opened: ClientConnection, **fields: Any) -> dict[str, Any]:
    """The frame that ends the response."""
    frame = {"type": "response.create", "model": MODEL, "stream": True} | fields
    await opened.send(json.dumps(frame))
    while True:
        event: dict[str, Any] = json.loads(await opened.recv())
        if event["type"] in ENDS:
            return event


def message(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": text}


class Codex:
    """Sends a warm-up and deltas; after an error the whole input on a new socket."""

    def __init__(self, stack: Stack, number: int, progress: Progress) -> None:
        self._stack = stack
        self._session = f"codex-{number}"
        self._progress = progress
        self._input: list[dict[str, Any]] = []
        self._sent = 0  # items that the upstream's socket has
        self._last: str | None = None  # the id to continue from
        self._turn = 0

    async def run(self) -> None:
        reconnects = 0
        while self._turn < TURNS:
            async with socket(self._stack, self._session) as opened:
                if not self._input:
                    warm = await self._ask(opened, generate=False, input=[])
                    if not self._took(warm):
                        raise AssertionError(warm)
                    self._sent = 0
                progressed = await self._converse(opened)
            reconnects = 0 if progressed else reconnects + 1
            assert reconnects <= RECONNECTS, self._session

    async def _converse(self, opened: ClientConnection) -> bool:
        """Turns until one fails. Returns whether any was answered."""
        progressed = False
        while self._turn < TURNS:
            if len(self._input) == self._sent or not self._input:
                await self._progress.next_turn.wait()
                self._input.append(message(f"turn {self._turn}"))
            fields: dict[str, Any] = {"input": self._input[self._sent :]}
            if self._last is not None:
                fields["previous_response_id"] = self._last
            event = await self._ask(opened, **fields)
            if not self._took(event):
                self._last, self._sent = None, 0
                await self._recover(event)
                return progressed
            self._input += event["response"]["output"]
            self._sent = len(self._input)
            self._turn += 1
            progressed = True
            self._progress.finished()
        return progressed

    async def _ask(self, opened: ClientConnection, **fields: Any) -> dict[str, Any]:
        fields |= {"store": False, "include": INCLUDE}
        return await ask(opened, prompt_cache_key=self._session, **fields)

    def _took(self, event: dict[str, Any]) -> bool:
        if event["type"] != "response.completed":
            return False
        self._last = event["response"]["id"]
        return True

    async def _recover(self, event: dict[str, Any]) -> None:
        """As Codex does. AssertionError if the event is fatal to it."""
        assert event["type"] == "error", event
        code, status = event["error"]["code"], event["status"]
        self._progress.events[f"{status} {code}"] += 1
        if code in ANEW_CODES or status in ANEW_STATUSES:
            return
        headers = event.get("headers") or {}
        assert status == 429, event
        assert code != "insufficient_quota", event
        await asyncio.sleep(int(headers["retry-after"]))


async def plain(stack: Stack, number: int, progress: Progress) -> None:
    """Sends its whole input with each turn, on one socket, and never sees an error."""
    history: list[dict[str, Any]] = []
    async with socket(stack, f"plain-{number}") as opened:
        for turn in range(TURNS):
            await progress.next_turn.wait()
            history.append(message(f"turn {turn}"))
            event = await ask(opened, input=history, store=False)
            assert event["type"] == "response.completed", event
            said = event["response"]["output"][-1]["content"][0]["text"]
            history.append({"type": "message", "role": "assistant", "content": said})
            progress.finished()


async def test_no_client_sees_a_fatal_error_while_a_key_can_serve(
    valkey: str, tmp_path: Path
) -> None:
    async with gateway_stack(valkey, tmp_path) as stack:
        progress = Progress(stack.simulator.state.faults)
        async with asyncio.TaskGroup() as group:
            for number in range(CODEX):
                group.create_task(Codex(stack, number, progress).run())
            for number in range(PLAIN):
                group.create_task(plain(stack, number, progress))
        await the_books_agree(stack, progress)


async def the_books_agree(stack: Stack, progress: Progress) -> None:
    told = sum(progress.events.values())
    turns = (CODEX + PLAIN) * TURNS + CODEX + told  # with warm-ups

    async def settled() -> bool:
        stored = await stack.events("request")
        return len(stored) >= turns and await stack.in_flight() == 0

    await eventually(settled)
    rows = await stack.events("request")
    outcomes = Counter(row["outcome"] for row in rows)
    assert outcomes == {"completed": turns - told, "failed": told}
    decisions: dict[str, list[dict[str, Any]]] = {}
    for decision in await stack.events("decision"):
        decisions.setdefault(decision["request_id"], []).append(decision)
    assert set(decisions) == {row["id"] for row in rows}
    causes: Counter[str] = Counter()
    for row in rows:
        made = decisions[row["id"]]
        causes += Counter(d["cause"] for d in made if d.get("cause"))
        sent = [d for d in made if d["resource_id"] is not None]
        assert [d["attempt"] for d in sent] == [*range(1, row.get("attempts", 0) + 1)]
        assert len(made) - len(sent) <= 1
        assert all(d.get("cause") for d in sent[1:])
        if sent:
            assert sent[-1]["resource_id"] == row.get("resource_id")
    # All four deaths were met.
    assert {"insufficient_quota", "key_refused", "rate_limited"} <= set(causes)
    assert "connection_lost" in causes
    assert progress.events["400 previous_response_not_found"] > 0
    print(len(rows), "rows;", dict(progress.events), dict(causes))  # noqa: T201
    await the_upstream_agrees(stack, rows)


async def the_upstream_agrees(stack: Stack, rows: list[dict[str, Any]]) -> None:
    """Each completed row is one frame that the upstream answered."""
    frames = [entry for entry in stack.journal() if entry["method"] == "WS"]
    served = Counter(e["response_id"] for e in frames if e["status"] == 200)
    stored = Counter(r["response_id"] for r in rows if r["outcome"] == "completed")
    assert served == stored
    states = {state.id: state for state in await stack.routing.states()}
    assert {state.in_flight for state in states.values()} == {0}
    assert states["openai-1"].health == states["openai-3"].health == "unhealthy"
