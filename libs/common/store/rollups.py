"""Sums of requests by minute and by quarter of an hour, for each model, resource and
proxy key: what a batch adds to them, and percentiles of their histograms.

A request counts once, however often it is sent: `dedupe` says which are new. What only
ended as `interrupted` counts without its model, so that it can be subtracted when its
real outcome arrives."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from libs.common.contracts.events import Outcome, RequestEvent, Row
from libs.common.contracts.prices import PriceList
from libs.common.runtime.label_values import LabelValues
from libs.common.store.dedupe import Changes, Stored
from libs.common.store.rows import instant

MINUTE, QUARTER = 60, 900
STEPS = (MINUTE, QUARTER)
MINUTES_KEPT = timedelta(hours=2)  # charts show one hour
MOST_MODELS = 50  # the rest is `other`; resources and keys are the operators'
BOUNDS_MS = tuple(25 * 2**doubled for doubled in range(15))
_SIZES = (*map(str, BOUNDS_MS), "longer")
LATENCY = tuple(f"latency_{size}" for size in _SIZES)
FIRST_TOKEN = tuple(f"first_token_{size}" for size in _SIZES)
TOKENS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
COUNTS = (
    *("requests", "failed", "cancelled", "interrupted", "attempts", "failovers"),
    *(*TOKENS, "latency_ms", "first_token_ms", *LATENCY, *FIRST_TOKEN),
)

_Place = tuple[int, str, str, str]  # Unix seconds, model, resource, proxy key


class Rollups:
    """What batches add. `prices`: for the cost; set before the first batch."""

    def __init__(self) -> None:
        self.prices = PriceList(())
        self._models = LabelValues(MOST_MODELS)

    def rows(self, changes: Changes) -> list[Row]:
        """Rows for `put_rollups`: one for each step and place."""
        minutes: dict[_Place, Row] = {}
        for request in changes.requests:
            self._add(minutes, request)
        for created_at_ms, stored in changes.retracted:
            _retract(minutes, created_at_ms, stored)
        quarters: dict[_Place, Row] = {}
        for (at, model, resource, key), row in minutes.items():
            _sum(_row(quarters, (at - at % QUARTER, model, resource, key)), row)
        return [
            _named(step, place, row)
            for step, rows in ((MINUTE, minutes), (QUARTER, quarters))
            for place, row in rows.items()
        ]

    def _add(self, minutes: dict[_Place, Row], request: RequestEvent) -> None:
        resource = request.resource_id or ""
        key = request.proxy_key_id or ""
        if request.outcome == Outcome.INTERRUPTED:
            row = _row(minutes, (_minute(request.created_at_ms), "", resource, key))
            row["requests"] += 1
            row["interrupted"] += 1
            return
        model = self._models.of(request.model, admits=request.input_tokens is not None)
        place = (_minute(request.created_at_ms), model, resource, key)
        row = _row(minutes, place)
        row["requests"] += 1
        row["attempts"] += request.attempts
        row["failovers"] += max(request.attempts - 1, 0)
        for name in TOKENS:
            row[name] += getattr(request, name) or 0
        cost = self.prices.cost_of(request) if request.total_tokens else None
        if cost is not None:
            row["cost"] = (row["cost"] or 0.0) + cost
        if request.outcome != Outcome.COMPLETED:
            row[request.outcome.value] += 1
            return
        for name, sizes in (("latency_ms", LATENCY), ("first_token_ms", FIRST_TOKEN)):
            took_ms = getattr(request, name)
            if took_ms is not None:
                row[name] += took_ms
                row[sizes[bisect_left(BOUNDS_MS, took_ms)]] += 1


def _retract(minutes: dict[_Place, Row], created_at_ms: int, stored: Stored) -> None:
    place = (
        _minute(created_at_ms),
        "",
        stored.resource_id or "",
        stored.proxy_key_id or "",
    )
    row = _row(minutes, place)
    row["requests"] -= 1
    row["interrupted"] -= 1


def _minute(ms: int) -> int:
    return ms // 60_000 * 60


def _row(rows: dict[_Place, Row], place: _Place) -> Row:
    row = rows.get(place)
    if row is None:
        row = rows[place] = {**dict.fromkeys(COUNTS, 0), "cost": None}
    return row


def _sum(row: Row, more: Row) -> None:
    for name in COUNTS:
        row[name] += more[name]
    if more["cost"] is not None:
        row["cost"] = (row["cost"] or 0.0) + more["cost"]


def _named(step: int, place: _Place, row: Row) -> Row:
    at, model, resource, key = place
    return {
        "step_seconds": step,
        "starts_at": instant(at * 1000),
        "model": model,
        "resource_id": resource,
        "proxy_key_id": key,
        **row,
    }


def percentile(counts: Sequence[int], share: float) -> float | None:
    """The duration in ms that `share` of the requests of a histogram did not exceed,
    assumed to be spread evenly within a bucket. None if there are no requests; the
    largest bound if it is beyond that."""
    total = sum(counts)
    if total <= 0:
        return None
    wanted, below, lower = share * total, 0, 0.0
    for count, upper in zip(counts, BOUNDS_MS, strict=False):
        if count > 0 and below + count >= wanted:
            return float(lower + (upper - lower) * (wanted - below) / count)
        below, lower = below + count, float(upper)
    return lower


def histogram(row: Mapping[str, Any], names: Sequence[str]) -> list[int]:
    return [row[name] or 0 for name in names]
