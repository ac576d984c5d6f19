"""What shards tell each other through Postgres: each batch once, in the order of
commits, and only if there is somebody to tell."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from libs.cli.checks.postgres import postgres
from libs.common.store.interface import COMMAND_LINE
from libs.common.store.postgres.store import PostgresStore
from libs.common.store.proxy_keys import TeamRows
from services.ingest.alerts.lease import LASTS, DeliveryLease
from services.router.budgets.spend import SpendRows
from services.router.shards.rows import ShardRows
from tests.support.databases.sql import execute, fetch
from tests.support.values.telemetry import (
    T0_MS,
    gateway_event,
    stored_request,
    streamed,
)

pytestmark = pytest.mark.asyncio
NOW = datetime.now(UTC)
SPENT: dict[str, Any] = {"team_id": "t", "total_tokens": 5, "cost_nanos": 70}
WINDOW = (0, T0_MS * 2)


class Pair:
    """The stores of two ingest processes, in a shard each."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.one, self.other = PostgresStore(url), PostgresStore(url)
        self.one.rollups.shard, self.other.rollups.shard = "b", "c"
        self.rows = ShardRows(self.one.fetch)

    async def team(self, **terms: Any) -> None:
        fields = {"id": "t", "name": "t", "policy": None, **terms}
        await TeamRows(self.one.fetch).by(COMMAND_LINE).add(fields, NOW)

    async def both(self) -> None:
        for name in ("b", "c"):
            await self.rows.note(name, name, NOW)


@pytest_asyncio.fixture
async def pair(postgres_url: str) -> AsyncIterator[Pair]:
    made = Pair(postgres_url)
    await made.one.migrate()
    yield made
    await made.one.close()
    await made.other.close()


async def test_one_shard_tells_nobody(pair: Pair) -> None:
    await pair.team(budget_tokens=100)
    await pair.rows.note("b", "b", NOW)
    await pair.one.write([stored_request("r1", **SPENT)])
    assert (await pair.rows.spent_by_others("c", 0)).used == []
    await pair.rows.note("c", "c", NOW)
    await pair.one.write([stored_request("r2", **SPENT)])
    ((_, subject, _, tokens, nanos),) = (await pair.rows.spent_by_others("c", 0)).used
    assert (subject, tokens, nanos) == ("team:t", 5, 70)
    assert (await pair.rows.spent_by_others("b", 0)).used == []


async def test_without_a_budget_nothing_is_told(pair: Pair) -> None:
    await pair.team()
    await pair.both()
    await pair.one.write([stored_request("r1", proxy_key_id="k", **SPENT)])
    assert await pair.rows.spent_by_others("c", 0) == (0, [])


async def test_a_sum_and_the_rows_after_it_are_each_request_once(pair: Pair) -> None:
    await pair.team(budget_tokens=100)
    await pair.both()
    spends = SpendRows(pair.other.fetch)

    async def stores(store: PostgresStore, name: str) -> None:
        for number in range(40):
            event = stored_request(f"{name}{number}", **SPENT)
            await store.write([event])
            await store.write([event])  # again: it changes nothing

    async def agrees() -> None:
        """At any time: the sum, and what is told after it."""
        used = await spends.spent("team:t", *WINDOW, ())
        newest, rows = await pair.rows.spent_by_others("none", used.newest)
        later = await spends.spent("team:t", *WINDOW, ())
        total = used.tokens + sum(row.tokens for row in rows)
        assert used.newest <= newest <= later.newest
        if newest == later.newest:
            assert total == later.tokens

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(stores(pair.one, "one")),
            group.create_task(stores(pair.other, "other")),
        ]
        while not all(task.done() for task in tasks):
            await agrees()
    await agrees()
    assert (await spends.spent("team:t", *WINDOW, ())).tokens == 80 * 5
    for shard in ("b", "c"):
        _, rows = await pair.rows.spent_by_others(shard, 0)
        assert sum(row.tokens for row in rows) == 40 * 5


async def test_shards_are_forgotten_after_a_day(pair: Pair) -> None:
    rows, first = pair.rows, datetime(2026, 1, 1, tzinfo=UTC)
    await rows.note("b", "1", first)
    await rows.note("c", "2", first + timedelta(hours=1))
    again = await rows.note("b", "1", first + timedelta(hours=20))
    assert [(s.name, s.since[11:13], s.seen_at[11:13]) for s in again] == [
        ("b", "00", "20"),
        ("c", "01", "01"),
    ]
    later = await rows.note("b", "1", first + timedelta(hours=26))
    assert [shard.name for shard in later] == ["b"]


async def test_old_rows_are_deleted_but_for_the_newest(pair: Pair) -> None:
    await pair.team(budget_tokens=100)
    await pair.both()
    for number in range(3):
        await pair.one.write([stored_request(f"r{number}", **SPENT)])
    before = await pair.rows.spent_by_others("c", 0)
    await pair.one.drop_minutes(NOW - timedelta(hours=1))
    assert await pair.rows.spent_by_others("c", 0) == before
    execute(pair.url, "UPDATE shard_spend SET stored_at = '2020-01-01Z'")
    await pair.one.drop_minutes(NOW)
    newest, rows = await pair.rows.spent_by_others("c", 0)
    assert (newest, [row.number for row in rows]) == (before.newest, [before.newest])


async def test_gateways_have_their_shard(pair: Pair) -> None:
    for store, name in ((pair.one, "gw-1"), (pair.other, "gw-2")):
        event = streamed(gateway_event(name), f"{name}:1")
        await store.write([event, stored_request(name, gateway_id=name)])
    query = "SELECT id, shard FROM gateways ORDER BY id"
    assert fetch(pair.url, query) == [("gw-1", "b"), ("gw-2", "c")]
    books = await pair.one.books()
    assert {(book.id, book.shard) for book in books if book.id != "*"} == {
        ("gw-1", "b"),
        ("gw-2", "c"),
    }


async def test_one_process_of_all_shards_sends_alerts(pair: Pair) -> None:
    now = NOW
    stores = (pair.one, pair.other)
    one, other = (
        DeliveryLease(store.fetch, name, lambda: now)
        for store, name in zip(stores, ("a", "b"), strict=True)
    )
    assert [await one.hold(), await other.hold(), await one.hold()] == [
        True,
        False,
        True,
    ]
    await one.release()
    assert [await other.hold(), await one.hold()] == [True, False]
    now += LASTS + timedelta(seconds=1)
    assert await one.hold()


async def test_changes_are_in_the_order_of_their_commits(pair: Pair) -> None:
    """Whatever the clocks of two routers say."""
    seen: list[set[str]] = []
    newest = 0
    for store, number in ((pair.one, 1), (pair.other, 2)):
        fields = {"id": f"t{number}", "name": "t", "policy": None}
        await TeamRows(store.fetch).by(COMMAND_LINE).add(fields, NOW)
        execute(pair.url, "UPDATE audit_log SET created_at = '2020-01-01Z'")
        newest, kinds = await pair.rows.changes(newest)
        seen.append(kinds)
    assert seen == [{"team"}, {"team"}]
    assert await pair.rows.changes(newest) == (newest, set())


async def test_doctor_finds_two_redis_servers_with_one_namespace(pair: Pair) -> None:
    def states() -> list[str]:
        found = postgres(pair.url, "PROXY_DATABASE_URL", 5.0, "b")
        return [finding.state.partition(" by ")[2] for finding in found][1:]

    assert await asyncio.to_thread(states) == []
    begins = datetime.now(UTC) - timedelta(seconds=30)
    await pair.rows.note("b", "emptied", begins - timedelta(seconds=20))
    await pair.rows.note("b", "one", begins)
    assert await asyncio.to_thread(states) == []
    for second in (1, 15):
        now = begins + timedelta(seconds=second)
        for instance in ("one", "two"):
            await pair.rows.note("b", instance, now)
    await pair.rows.note("c", "other", begins)
    assert await asyncio.to_thread(states) == [
        "the routers of several Redis servers that all have the namespace b",
        "the shards b, c; this one is b",
    ]
