"""Summing a window: each request counts once, wherever it is."""

import json
from collections.abc import AsyncIterator, Collection, Iterable, Sequence

import pytest

from libs.common.redis.telemetry_stream import Entry
from libs.common.routing.budgets import Noted, Recount, Sum
from services.router.budgets.recounter import (
    NOTED_AT_ONCE,
    RESENT_WITHIN,
    RESTORED_WITHIN,
    Recounter,
    Used,
)

pytestmark = pytest.mark.asyncio

HEARTBEAT_S = 2.0
RESENT_MS = int(RESENT_WITHIN * HEARTBEAT_S * 1000)
RESTORED_MS = int(RESTORED_WITHIN * HEARTBEAT_S * 1000)
KEY = Recount("key:k", "1", 100, 200)
TEAM = Recount("team:t", "1", 0, 1_000, reserves=True)


class World:
    """Redis, SQL and the stream. `meanwhile`: requests that are published and stored
    while SQL is asked."""

    def __init__(self, *wanted: Recount, age_ms: int = 60_000) -> None:
        self.wanted = list(wanted)
        self.age_ms = age_ms
        self.leads = True
        self.stored_rows: dict[str, tuple[int, int]] = {}
        self.streamed: list[Entry] = []
        self.noted: dict[str, tuple[int, int]] = {}
        self.meanwhile: list[tuple[str, bool]] = []
        self.known: dict[str, tuple[int, int]] = {}
        self.asked = 0
        self.resent = 0  # events that were sent again
        self.told: list[bool] = []  # were ids asked for?
        self.others = self.added = False

    async def hold(self) -> bool:
        return self.leads

    async def recounts(self) -> tuple[int, list[Recount]]:
        return self.age_ms, self.wanted

    async def note_events(
        self, recount: Recount, used: Iterable[Used] = (), tell: bool = True
    ) -> Noted | None:
        self.told.append(tell)
        if recount.subject in self.known:
            return None
        for id_, tokens, nanos in used:
            self.noted.setdefault(id_, (tokens, nanos))
        return Noted(self.resent, set(self.noted) if tell else set())

    @property
    def due(self) -> bool:
        return self.others

    async def add(self) -> None:
        self.added = True

    async def recounted(self, recount: Recount, noted: Noted, used: Sum) -> bool:
        assert noted.resent == self.resent
        spent = [*self.noted.values(), (used.tokens, used.nanos)]
        total = sum(t for t, _ in spent), sum(n for _, n in spent)
        self.known[recount.subject] = total
        return True

    async def spent(
        self, subject: str, start_ms: int, end_ms: int, without: Iterable[str]
    ) -> Sum:
        self.asked += 1
        if self.meanwhile:
            id_, stores = self.meanwhile.pop(0)
            self.noted[id_] = (1, 10)
            self.resent += 1
            if stores:
                self.stored_rows[id_] = (1, 10)
        left = set(without)
        rows = [row for id_, row in self.stored_rows.items() if id_ not in left]
        return Sum(sum(t for t, _ in rows), sum(n for _, n in rows))

    async def stored(
        self, ids: Collection[str], start_ms: int, end_ms: int
    ) -> set[str]:
        return {id_ for id_ in ids if id_ in self.stored_rows}

    async def entries(self) -> AsyncIterator[Sequence[Entry]]:
        yield self.streamed

    def streams(self, id_: str, at_ms: int, tokens: int, kind: str = "request") -> None:
        event = {"created_at_ms": at_ms, "proxy_key_id": "k", "team_id": "t"}
        data = json.dumps({**event, "total_tokens": tokens, "cost_nanos": 5}).encode()
        fields = {b"kind": kind.encode(), b"id": id_.encode(), b"data": data}
        self.streamed.append(Entry("1-1", fields))

    async def look(self) -> None:
        await Recounter(self, self, self, self, self, HEARTBEAT_S).look()


async def test_what_is_stored_and_what_waits_are_added() -> None:
    world = World(KEY)
    world.stored_rows = {"a": (3, 30), "b": (4, 40)}
    world.noted = {"b": (4, 40)}  # sent again, and stored before
    world.streams("c", 150, 2)
    world.streams("early", 99, 100)
    world.streams("late", 200, 100)
    world.streams("d", 150, 100, kind="decision")
    await world.look()
    assert world.known == {"key:k": (3 + 4 + 2, 30 + 40 + 5)}


@pytest.mark.parametrize("stores", [False, True])
async def test_what_is_published_meanwhile_counts_once(stores: bool) -> None:
    world = World(KEY)
    world.stored_rows = {"a": (3, 30)}
    world.meanwhile = [("n1", stores), ("n2", False)]
    await world.look()
    # The second time nothing is in doubt.
    assert world.asked == (2 if stores else 1)
    assert world.known["key:k"][0] == 3 + (2 if stores else 1)


@pytest.mark.parametrize("leads", [False, True])
async def test_only_the_leader_sums(leads: bool) -> None:
    world = World(KEY)
    world.leads, world.others = leads, True
    await world.look()
    assert bool(world.known) is world.added is leads


async def test_events_are_sent_again_first() -> None:
    world = World(KEY, age_ms=RESENT_MS)
    await world.look()
    assert world.known == {}
    world.age_ms += 1
    await world.look()
    assert set(world.known) == {"key:k"}


async def test_reservations_are_restored_first() -> None:
    world = World(TEAM, KEY, age_ms=RESTORED_MS)
    await world.look()
    assert set(world.known) == {"key:k"}
    world.age_ms += 1
    await world.look()
    assert set(world.known) == {"key:k", "team:t"}


@pytest.mark.parametrize("streamed", [0, NOTED_AT_ONCE, 2 * NOTED_AT_ONCE + 1])
async def test_ids_are_asked_for_once_before_sql(streamed: int) -> None:
    world = World(KEY)
    for number in range(streamed):
        world.streams(f"r{number}", 150, 1)
    await world.look()
    assert world.known["key:k"][0] == streamed
    quiet = max(streamed - 1, 0) // NOTED_AT_ONCE
    assert world.told == [False] * quiet + [True, True]


async def test_an_odd_entry_is_left_out() -> None:
    world = World(KEY)
    world.streams("c", 150, 2)
    world.streamed.append(Entry("1-2", {b"kind": b"request", b"data": b"{"}))
    world.streams("none", 150, 0)
    await world.look()
    assert world.known["key:k"][0] == 2
