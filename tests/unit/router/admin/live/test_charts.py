"""Charts: steps, and series from rows of sums."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from libs.common.contracts.events import Row
from libs.common.errors import StoreAway
from libs.common.store.rollups import COUNTS
from services.router.admin.live.charts import WINDOWS, ChartsView, series, steps
from tests.support.values.admin import client, problem

NOW = 1_700_000_123.9


def sums(at: int, **over: Any) -> Row:
    return {"at": at, **dict.fromkeys(COUNTS, 0), "cost": None, **over}


class Api:
    def __init__(self, *rows: Row) -> None:
        self.rows = rows
        self.error: Exception | None = None
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        view = ChartsView(self.fetch, lambda: NOW)
        self._client = client({"/admin/charts": view})

    async def fetch(self, name: str, values: Mapping[str, Any]) -> list[Row]:
        self.asked.append((name, values))
        if self.error:
            raise self.error
        return list(self.rows)

    def get(self, query: str = "") -> Any:
        return self._client.simulate_get("/admin/charts", query_string=query)


@pytest.mark.parametrize(
    ("name", "step_s", "count"),
    [("hour", 60, 60), ("day", 900, 96), ("week", 3600, 168)],
)
def test_a_window_ends_with_the_step_that_has_begun(
    name: str, step_s: int, count: int
) -> None:
    times = steps(WINDOWS[name], NOW)
    assert len(times) == count
    assert times[-1] <= NOW < times[-1] + step_s
    assert {b - a for a, b in pairwise(times)} == {step_s}
    assert times[0] % step_s == 0


def test_a_chart_of_an_hour() -> None:
    api = Api(
        sums(1_700_000_100, requests=4, failed=1, latency_100=4, first_token_50=2,
             input_tokens=7, cost=0.5)
    )  # fmt: skip
    answer = api.get("model=m&resource_id=a&proxy_key_id=k&team_id=t").json
    assert (answer["window"], answer["step_seconds"]) == ("hour", 60)
    assert answer["from"] == "2023-11-14T21:16:00.000Z"
    assert answer["times"][-1] == 1_700_000_100
    last = {name: values[-1] for name, values in answer["series"].items()}
    assert last == {
        "requests": 4, "failed": 1, "cancelled": 0, "interrupted": 0, "failovers": 0,
        "input_tokens": 7, "cached_tokens": 0, "output_tokens": 0,
        "reasoning_tokens": 0, "latency_p50_ms": 75.0, "latency_p95_ms": 97.5,
        "first_token_p50_ms": 37.5, "first_token_p95_ms": 48.8, "cost_usd": 0.5,
    }  # fmt: skip
    first = {name: values[0] for name, values in answer["series"].items()}
    assert first["requests"] == 0
    assert first["latency_p50_ms"] is first["cost_usd"] is None
    assert {len(values) for values in answer["series"].values()} == {60}
    assert api.asked == [
        ("charts",
         {"model": "m", "resource_id": "a", "proxy_key_id": "k", "team_id": "t",
          "step": 60, "grain": 60, "since": "2023-11-14T21:16:00.000Z"})
    ]  # fmt: skip


def test_what_was_subtracted_from_nothing_is_no_negative_count() -> None:
    assert series([60], [sums(60, requests=-1)])["requests"] == [0]


@pytest.mark.parametrize(
    ("query", "param"), [("window=year", "window"), ("model=a%00", "model")]
)
def test_nonsense_is_named(query: str, param: str) -> None:
    assert problem(Api().get(query)) == (400, "invalid_query", param)


def test_a_database_that_is_away() -> None:
    api = Api()
    api.error = StoreAway()
    assert problem(api.get())[:2] == (503, "database_unreachable")
