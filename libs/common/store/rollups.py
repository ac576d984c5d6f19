"""Sums of requests by minute and by quarter of an hour, for each model, resource and
proxy key: what a batch adds to them, and percentiles of their histograms.

A request counts once, however often it is sent: `dedupe` says which are new. What only
ended as `interrupted` counts without its model, so that it can be subtracted when its
real outcome arrives."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from datetime import timedelta
from operator import add
from typing import Any

from libs.common.contracts.events import Outcome, RequestEvent
from libs.common.contracts.prices import PriceList
from libs.common.redis.keys import DEFAULT_NAMESPACE
from libs.common.runtime.label_values import LabelValues
from libs.common.store.dedupe import Changes, Stored
from libs.common.store.rows import iso_ms

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

# The columns of the table, in the order of rows.
COLUMNS = (
    *("step_seconds", "starts_at", "model", "resource_id", "proxy_key_id"),
    *(*COUNTS, "cost"),
)

_Place = tuple[int, str, str, str]  # Unix seconds, model, resource, proxy key
_Sums = list[Any]  # of `COUNTS`, and the cost
_NOTHING: _Sums = [*(0 for _ in COUNTS), None]
_AT = {name: position for position, name in enumerate(COUNTS)}
_REQUESTS, _ATTEMPTS, _FAILOVERS = _AT["requests"], _AT["attempts"], _AT["failovers"]
_INPUT, _CACHED, _OUTPUT, _REASONING = (_AT[name] for name in TOKENS)
_INTERRUPTED = _AT["interrupted"]
_ENDED = {Outcome.FAILED: _AT["failed"], Outcome.CANCELLED: _AT["cancelled"]}
_LATENCY_MS, _LATENCY = _AT["latency_ms"], _AT[LATENCY[0]]
_FIRST_TOKEN_MS, _FIRST_TOKEN = _AT["first_token_ms"], _AT[FIRST_TOKEN[0]]
_COST = len(COUNTS)


class Rollups:
    """What batches add. `prices`: for the cost; `shard`: whose batches they are. Both
    are set before the first batch."""

    def __init__(self) -> None:
        self.prices = PriceList(())
        self.shard = DEFAULT_NAMESPACE
        self._models = LabelValues(MOST_MODELS)

    def rows(self, changes: Changes) -> list[tuple[Any, ...]]:
        """Rows for `put_rollups`: one for each step and place."""
        minutes: dict[_Place, _Sums] = {}
        for request in changes.requests:
            self._add(minutes, request)
        for created_at_ms, stored in changes.retracted:
            _retract(minutes, created_at_ms, stored)
        quarters: dict[_Place, _Sums] = {}
        for (at, model, resource, key), sums in minutes.items():
            _join(quarters, (at - at % QUARTER, model, resource, key), sums)
        return [
            (step, iso_ms(at * 1000), model, resource, key, *sums)
            for step, places in ((MINUTE, minutes), (QUARTER, quarters))
            for (at, model, resource, key), sums in places.items()
        ]

    def _add(self, minutes: dict[_Place, _Sums], request: RequestEvent) -> None:
        resource = request.resource_id or ""
        key = request.proxy_key_id or ""
        minute = _minute(request.created_at_ms)
        outcome = request.outcome
        if outcome is Outcome.INTERRUPTED:
            sums = _sums(minutes, (minute, "", resource, key))
            sums[_REQUESTS] += 1
            sums[_INTERRUPTED] += 1
            return
        model = self._models.of(request.model, admits=request.input_tokens is not None)
        sums = _sums(minutes, (minute, model, resource, key))
        sums[_REQUESTS] += 1
        sums[_ATTEMPTS] += request.attempts
        sums[_FAILOVERS] += max(request.attempts - 1, 0)
        sums[_INPUT] += request.input_tokens or 0
        sums[_CACHED] += request.cached_tokens or 0
        sums[_OUTPUT] += request.output_tokens or 0
        sums[_REASONING] += request.reasoning_tokens or 0
        cost = self.prices.cost_of(request) if request.total_tokens else None
        if cost is not None:
            sums[_COST] = (sums[_COST] or 0.0) + cost
        if outcome is not Outcome.COMPLETED:
            sums[_ENDED[outcome]] += 1
            return
        if (took_ms := request.latency_ms) is not None:
            sums[_LATENCY_MS] += took_ms
            sums[_LATENCY + bisect_left(BOUNDS_MS, took_ms)] += 1
        if (took_ms := request.first_token_ms) is not None:
            sums[_FIRST_TOKEN_MS] += took_ms
            sums[_FIRST_TOKEN + bisect_left(BOUNDS_MS, took_ms)] += 1


def _retract(minutes: dict[_Place, _Sums], created_at_ms: int, stored: Stored) -> None:
    place = (
        _minute(created_at_ms),
        "",
        stored.resource_id or "",
        stored.proxy_key_id or "",
    )
    sums = _sums(minutes, place)
    sums[_REQUESTS] -= 1
    sums[_INTERRUPTED] -= 1


def _minute(ms: int) -> int:
    return ms // 60_000 * 60


def _sums(places: dict[_Place, _Sums], place: _Place) -> _Sums:
    sums = places.get(place)
    if sums is None:
        sums = places[place] = _NOTHING.copy()
    return sums


def _join(places: dict[_Place, _Sums], place: _Place, more: _Sums) -> None:
    sums = places.get(place)
    if sums is None:
        places[place] = more  # shared: sums of a place are replaced, not changed
        return
    cost = sums[_COST] if more[_COST] is None else (sums[_COST] or 0.0) + more[_COST]
    places[place] = [*map(add, sums[:_COST], more), cost]


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
