"""`GET /admin/charts`: requests, errors, times, tokens and cost of the last hour, day
or week, from the sums that ingest keeps."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from libs.common.contracts.events import Row
from libs.common.store.rollups import (
    FIRST_TOKEN,
    LATENCY,
    MINUTE,
    QUARTER,
    histogram,
    percentile,
)
from libs.common.store.rows import iso
from services.router.admin.schemas.charts import ChartFilter, Charts
from services.router.api.operation import Operation


class Window(NamedTuple):
    """How long a chart is, its steps, and the steps of the sums that it is made of."""

    lasts_s: int
    step_s: int
    grain_s: int


WINDOWS = {
    "hour": Window(3600, MINUTE, MINUTE),
    "day": Window(86_400, QUARTER, QUARTER),
    "week": Window(604_800, 3600, QUARTER),
}
COST_DIGITS = 9  # a token may cost less than a millionth
COUNTS = (
    *("requests", "failed", "cancelled", "interrupted", "failovers"),
    *("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens"),
)
PERCENTILES = {
    "latency_p50_ms": (LATENCY, 0.5),
    "latency_p95_ms": (LATENCY, 0.95),
    "first_token_p50_ms": (FIRST_TOKEN, 0.5),
    "first_token_p95_ms": (FIRST_TOKEN, 0.95),
}


class Fetch(Protocol):
    async def __call__(self, name: str, values: Mapping[str, Any]) -> list[Row]: ...


class ChartsView:
    def __init__(self, fetch: Fetch, clock: Callable[[], float] = time.time) -> None:
        self._fetch = fetch
        self._clock = clock

    @Operation(returns=Charts, problems=(503,))
    async def on_get(self, query: ChartFilter) -> dict[str, Any]:
        """Requests, errors, times, tokens and cost over time. The last step has only
        begun."""
        window = WINDOWS[query.window]
        times = steps(window, self._clock())
        since = datetime.fromtimestamp(times[0], UTC)
        rows = await self._fetch(
            "charts",
            {
                **query.model_dump(exclude={"window"}),
                "step": window.step_s,
                "grain": window.grain_s,
                "since": iso(since),
            },
        )
        return {
            "window": query.window,
            "step_seconds": window.step_s,
            "from": iso(since),
            "times": times,
            "series": series(times, rows),
        }


def steps(window: Window, now: float) -> list[int]:
    """When each step of a chart begins, in Unix seconds; the last one is running."""
    last = int(now) // window.step_s * window.step_s
    return list(range(last - window.lasts_s + window.step_s, last + 1, window.step_s))


def series(times: Sequence[int], rows: Sequence[Row]) -> dict[str, list[Any]]:
    """A value of each series for each time, as in `Charts`."""
    by_time = {row["at"]: row for row in rows}
    found = [by_time.get(at) for at in times]
    return {
        # A row that replaced one of before there were sums is subtracted from nothing.
        **{n: [max(row[n], 0) if row else 0 for row in found] for n in COUNTS},
        **{
            name: [
                _rounded(percentile(histogram(row, names), share)) if row else None
                for row in found
            ]
            for name, (names, share) in PERCENTILES.items()
        },
        "cost_usd": [
            _rounded(row["cost"], COST_DIGITS) if row else None for row in found
        ],
    }


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)
