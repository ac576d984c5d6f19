"""Every query in README.md, docs/queries.md and docs/capacity.md on both databases, and
the views' results for known rows."""

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from libs.common.contracts.events import Outcome, RequestEvent
from libs.common.contracts.prices import Price, PriceList
from libs.common.store.factory import open_store
from libs.common.store.prices import PriceRows, read_price_list
from libs.common.store.store import Store
from tests.support.databases.sql import fetch
from tests.support.databases.stores import database
from tests.support.values.telemetry import (
    decision_event,
    health_event,
    stored_request,
    streamed,
)

pytestmark = pytest.mark.asyncio

ROOT = Path(__file__).resolve().parents[3]
DAY = "2026-11-24"
AT_MS = 1_795_521_600_000  # noon of that day
REQUEST = "019f2a30-0000-7000-8000-000000000001"
DOCUMENTED = [
    pytest.param(query, id=f"{page} {n}")
    for page in ("README.md", "docs/queries.md", "docs/capacity.md")
    for n, query in enumerate(
        re.findall(r"```sql\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    )
]
# Queries without rows when all is well, and queries for an id or a key.
MAY_BE_EMPTY = ("dead_letters", "'…'", "proxy_keys", "payloads")


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a filled database, for queries."""
    with database(request.param, request, tmp_path_factory.mktemp("asked")) as url:
        asyncio.run(_opened_and_filled(url))
        yield url


async def _opened_and_filled(url: str) -> None:
    store = open_store(url)
    await store.migrate()
    await fill(store)
    await store.close()


async def fill(store: Store) -> None:
    await store.make_partitions(datetime(2026, 11, 24, tzinfo=UTC).date())
    at = {"created_at_ms": AT_MS, "completed_at_ms": AT_MS + 900, "session_id": "s"}
    used = {"input_tokens": 1000, "cached_tokens": 400, "output_tokens": 100,
            "total_tokens": 1100, "model": "m"}  # fmt: skip
    chosen = {"created_at_ms": AT_MS, "session_id": "s"}
    await store.write([
        stored_request(REQUEST, **at, **used, attempts=2, resource_id="two",
                       latency_ms=900, first_token_ms=300, response_id="resp_0a1b2c3d",
                       upstream_model="m-2025", session_name="work"),
        stored_request("other", **at, **used, resource_id="two", first_token_ms=50),
        stored_request("none", **at, outcome=Outcome.FAILED, status_code=503),
        streamed(decision_event(REQUEST, **chosen, resource_id="one"), "d1"),
        streamed(decision_event(REQUEST, **chosen, attempt=2, resource_id="two",
                                cause="rate_limited"), "d2"),
        streamed(decision_event("none", **chosen, cause="cooling_down"), "d3"),
        streamed(decision_event("none", **chosen, attempt=2, resource_id=None,
                                cause="rate_limited"), "d4"),
        streamed(health_event(created_at_ms=AT_MS), "h1"),
    ])  # fmt: skip
    await store.put_prices([
        Price("m", datetime(2026, 1, 1, tzinfo=UTC), 2.0, 0.5, 10.0),
        Price("m", datetime(2026, 12, 1, tzinfo=UTC), 99.0, 99.0, 99.0),
        Price("m-2025", datetime(2025, 1, 1, tzinfo=UTC), 20.0, 5.0, 100.0),
    ])  # fmt: skip


@pytest.mark.parametrize("query", DOCUMENTED)
async def test_every_documented_query_answers(shared: str, query: str) -> None:
    # The driver takes a percent sign for a placeholder; there are none.
    rows = fetch(shared, query.replace("%", "%%"))
    assert rows or any(word in query for word in MAY_BE_EMPTY)


async def test_costs_follow_the_price_of_that_day_and_model(shared: str) -> None:
    rows = fetch(shared, "SELECT model, requests, unpriced, cost FROM costs_by_day")
    by_model = {model: rest for model, *rest in rows}
    # By the model that answered: 600 x 20 + 400 x 5 + 100 x 100; by the requested model
    # a tenth of it; per million tokens.
    assert by_model == {"m": [2, 0, 0.024 + 0.0024], None: [1, 0, 0.0]}


async def test_prices_are_replaced_as_a_whole(url: str, store: Store) -> None:
    await fill(store)
    await store.put_prices([])
    assert fetch(url, "SELECT * FROM prices") == []
    unpriced = "SELECT sum(unpriced), sum(cost) FROM costs_by_day"
    assert [tuple(map(float, row)) for row in fetch(url, unpriced)] == [(2.0, 0.0)]


async def test_the_view_and_the_list_agree(url: str, store: Store) -> None:
    """With prices of tiers and of reasoning, of the file and of the admin API."""
    await store.make_partitions(datetime(2026, 11, 24, tzinfo=UTC).date())
    old, new = datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
    await store.put_prices([
        Price("m", old, 3.0, 1.0, 30.0),
        Price("m", old, 2.0, 1.0, 20.0, 5.0, "flex"),
        Price("m", new, 1.0, 0.5, 10.0, 0.0),
        Price("n", old, 7.0, 7.0, 7.0),
    ])  # fmt: skip
    own = {"input": 5.0, "cached_input": 0.0, "output": 50.0, "reasoning": 1.0,
           "service_tier": "", "valid_from": "2026-01-01T00:00:00.000Z"}  # fmt: skip
    await PriceRows(store.fetch).put("n", [own], new)
    at = {"created_at_ms": AT_MS, "completed_at_ms": AT_MS + 900}
    used = {"input_tokens": 1_000_000, "cached_tokens": 250_000,
            "output_tokens": 500_000, "reasoning_tokens": 100_000,
            "total_tokens": 1_500_000}  # fmt: skip
    asked = [
        {"model": model, "upstream_model": upstream, "service_tier": tier}
        for model in ("m", "n", "x", None)
        for upstream in ("m", "n", "x", None)
        for tier in (None, "flex", "default")
    ]
    events = [
        stored_request(f"r{n}", **at, **used, resource_id=f"r{n}", **given)
        for n, given in enumerate(asked)
    ]
    counted = {"model": "x", "cost_nanos": 5 * 10**9}  # by a gateway
    events.append(stored_request("own", **at, **used, resource_id="own", **counted))
    await store.write(events)
    prices = PriceList(await read_price_list(store.fetch))
    expected = {
        event.event.id: prices.cost_of(event.event)
        for event in events
        if isinstance(event.event, RequestEvent)
    }
    found = fetch(url, "SELECT resource_id, cost, unpriced FROM costs_by_day")
    assert {id_: cost or None for id_, cost, _ in found} == pytest.approx(expected)
    unpriced = {id_ for id_, cost in expected.items() if cost is None}
    assert {id_ for id_, _, count in found if count} == unpriced
    assert 0 < len(unpriced) < len(asked)
    for n in range(len(asked)):
        row = await store.request(f"r{n}")
        assert row is not None
        priced = [each["cost"] for each in await store.fetch("cost_of_request", row)]
        cost = expected[f"r{n}"]
        assert priced == ([] if cost is None else [pytest.approx(cost)])


async def test_failovers_say_what_was_left(shared: str) -> None:
    query = "SELECT left_resource_id, resource_id, cause, outcome FROM failovers"
    assert sorted(fetch(shared, query)) == [
        ("one", "two", "rate_limited", "completed"),
        ("openai-1", None, "rate_limited", "failed"),
    ]


async def test_failovers_by_cause_are_shares_of_the_days_requests(shared: str) -> None:
    rows = fetch(shared, "SELECT * FROM failovers_by_cause ORDER BY cause")
    assert [(str(day), *rest) for day, *rest in rows] == [
        (DAY, "cooling_down", 1, 1, 0, 0.3333),
        (DAY, "rate_limited", 2, 2, 1, 0.6667),
    ]


async def test_slowest_first_tokens_come_first(shared: str) -> None:
    query = "SELECT id, first_token_ms FROM slowest_first_tokens"
    assert fetch(shared, query) == [(REQUEST, 300.0), ("other", 50.0)]


async def test_sessions_and_caches_by_day(shared: str) -> None:
    ((day, *rest),) = fetch(shared, "SELECT * FROM tokens_by_session")
    assert (str(day), rest) == (DAY, ["s", "work", 3, 2000, 800, 200, 2200])
    ((day, *rest),) = fetch(shared, "SELECT * FROM cache_hits_by_day")
    assert (str(day), rest) == (DAY, ["m", "two", 2, 2000, 800, 0.4])
