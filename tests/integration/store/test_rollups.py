"""Sums of requests agree with the requests, however often and in whichever order they
are sent. The same on SQLite and Postgres."""

import random
from datetime import UTC, date, datetime
from typing import Any

import pytest

from libs.common.contracts.events import Outcome, Row, StreamedEvent
from libs.common.contracts.prices import Price, PriceList
from libs.common.store.rows import iso_ms
from libs.common.store.store import Store
from services.router.admin.live.charts import WINDOWS, series, steps
from tests.support.databases.sql import execute, fetch
from tests.support.values.telemetry import T0_MS, stored_request

pytestmark = pytest.mark.asyncio

PRICE = Price("m1", datetime(2020, 1, 1, tzinfo=UTC), 1.0, 0.5, 2.0)
NOTHING: Row = dict.fromkeys(("model", "resource_id", "proxy_key_id", "team_id"))
OF_REQUESTS = """
SELECT count(*), sum(CASE WHEN outcome = 'failed' THEN 1 ELSE 0 END),
       sum(CASE WHEN outcome = 'interrupted' THEN 1 ELSE 0 END),
       sum(CASE WHEN outcome = 'interrupted' THEN 0 ELSE attempts - 1 END),
       sum(CASE WHEN outcome = 'interrupted' THEN 0 ELSE input_tokens END),
       sum(CASE WHEN outcome = 'completed' THEN 1 ELSE 0 END)
FROM requests
"""
OF_ROLLUPS = """
SELECT sum(requests), sum(failed), sum(interrupted), sum(failovers),
       sum(input_tokens),
       sum(latency_25 + latency_50 + latency_100 + latency_200 + latency_400)
FROM rollups WHERE step_seconds =
"""


def request(n: int, outcome: Outcome, at_ms: int = T0_MS) -> StreamedEvent:
    return stored_request(
        f"r{n}", created_at_ms=at_ms, outcome=outcome, model=f"m{n % 3}",
        resource_id=f"a{n % 2}", proxy_key_id=f"k{n % 2}", attempts=1 + n % 2,
        latency_ms=float(n), first_token_ms=5.0, input_tokens=n, cached_tokens=0,
        output_tokens=1, total_tokens=n + 1,
    )  # fmt: skip


async def charted(store: Store, **over: Any) -> Row:
    values = {"step": 60, "grain": 60, "since": iso_ms(T0_MS - 3_600_000)}
    rows = await store.fetch("charts", {**NOTHING, **values, **over})
    shown = series([row["at"] for row in rows], rows)
    return {name: values[0] if values else None for name, values in shown.items()}


async def test_sums_agree_with_requests_that_are_sent_again_and_again(
    url: str, store: Store
) -> None:
    draw = random.Random(14)  # noqa: S311 - a test's cases
    sent: list[StreamedEvent] = []
    for n in range(60):
        at_ms = T0_MS + draw.randrange(3_600_000)
        final = draw.choice([Outcome.COMPLETED, Outcome.FAILED, Outcome.CANCELLED])
        sent += [request(n, Outcome.INTERRUPTED, at_ms), request(n, final, at_ms)]
        sent += [request(n + 100, Outcome.INTERRUPTED, at_ms)]
    for _ in range(12):
        draw.shuffle(sent)
        await store.write(sent[: draw.randrange(1, len(sent))])
    for grain in (60, 900):
        of_rollups = fetch(url, f"{OF_ROLLUPS} {grain}")
        assert [*map(float, of_rollups[0])] == [*map(float, fetch(url, OF_REQUESTS)[0])]
    assert fetch(url, "SELECT count(*) FROM rollups WHERE requests < 0") == [(0,)]


async def test_charts_of_what_was_stored(url: str, store: Store) -> None:
    store.rollups.prices = PriceList([PRICE])
    await store.write([request(n, Outcome.COMPLETED) for n in range(6)])
    await store.write([request(6, Outcome.FAILED)])
    whole = await charted(store)
    assert (whole["requests"], whole["failed"], whole["failovers"]) == (7, 1, 3)
    assert whole["input_tokens"] == 21
    assert 0 < whole["latency_p50_ms"] <= 25
    assert whole["cost_usd"] == pytest.approx((1 + 2 + 4 + 2) / 1e6)
    assert (await charted(store, model="m1"))["requests"] == 2
    assert (await charted(store, model="m0"))["cost_usd"] is None
    assert (await charted(store, resource_id="a1"))["requests"] == 3
    assert (await charted(store, proxy_key_id="k0", resource_id="a0"))["requests"] == 4
    assert (await charted(store, resource_id="a1", proxy_key_id="k0"))[
        "requests"
    ] is None
    execute(url, "INSERT INTO proxy_keys (id, prefix, secret_hash, name, created_at, "
                 "team_id) VALUES ('k1', 'rpx_', 'h', 'n', '2026-01-01T00:00:00.000Z', "
                 "'t')")  # fmt: skip
    assert (await charted(store, team_id="t"))["requests"] == 3
    assert (await charted(store, team_id="u"))["requests"] is None


@pytest.mark.parametrize("name", list(WINDOWS))
async def test_each_window_finds_its_sums(url: str, store: Store, name: str) -> None:
    await store.write([request(1, Outcome.COMPLETED)])
    window, now = WINDOWS[name], T0_MS / 1000
    times = steps(window, now)
    values = {"step": window.step_s, "grain": window.grain_s,
              "since": iso_ms(times[0] * 1000)}  # fmt: skip
    rows = await store.fetch("charts", {**NOTHING, **values})
    assert series(times, rows)["requests"] == [0] * (len(times) - 1) + [1]


async def test_minutes_and_old_days_are_dropped(url: str, store: Store) -> None:
    await store.write([request(1, Outcome.COMPLETED)])
    await store.write([request(2, Outcome.COMPLETED, T0_MS + 86_400_000)])
    count = "SELECT step_seconds, count(*) FROM rollups GROUP BY 1 ORDER BY 1"
    assert fetch(url, count) == [(60, 2), (900, 2)]
    await store.drop_minutes(datetime(2023, 11, 15, tzinfo=UTC))
    assert fetch(url, count) == [(60, 1), (900, 2)]
    await store.drop_before(date(2023, 11, 15))
    assert fetch(url, count) == [(60, 1), (900, 1)]


async def test_the_cost_of_a_request_is_that_of_the_newest_price(store: Store) -> None:
    newer = Price("m1", datetime(2023, 11, 1, tzinfo=UTC), 10.0, 5.0, 20.0)
    later = Price("m1", datetime(2024, 1, 1, tzinfo=UTC), 99.0, 99.0, 99.0)
    await store.put_prices([PRICE, newer, later])
    await store.write([request(1, Outcome.COMPLETED), request(2, Outcome.COMPLETED)])
    first, second = await store.request("r1"), await store.request("r2")
    assert first is not None
    assert second is not None
    (found,) = await store.fetch("cost_of_request", first)
    assert found["cost"] == pytest.approx(30 / 1e6)
    assert await store.fetch("cost_of_request", second) == []
