"""Prometheus metrics of the hot path. Plain integers that are read at each scrape,
because a counter of the client library takes a lock and longer than routing."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import get_args

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import REGISTRY, Collector

from libs.common.contracts.events import Outcome
from libs.common.contracts.verdicts import VerdictKind

BOUNDS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1.0)

requests = dict.fromkeys((outcome.value for outcome in Outcome), 0)
attempts = dict.fromkeys(get_args(VerdictKind), 0)

refused: dict[str, int] = {}  # requests refused before acceptance, by error code

_gauges: dict[str, tuple[str, Callable[[], int]]] = {}


def watch(name: str, text: str, value: Callable[[], int]) -> None:
    """Registers a gauge whose `value` is called at each scrape."""
    _gauges[name] = text, value


def count_refused(code: str) -> None:
    """Counts a refused request. It gets no row and no log line, since there may be
    very many."""
    refused[code] = refused.get(code, 0) + 1


class Histogram:
    """A histogram of seconds, by upper bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def family(self, name: str, text: str) -> HistogramMetricFamily:
        buckets, total = [], 0
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((str(bound), total))
        return HistogramMetricFamily(name, text, buckets=buckets, sum_value=self._sum)


overhead = Histogram(BOUNDS_S)


class _Counts(Collector):
    def collect(self) -> Iterator[Metric]:
        for name, (text, value) in _gauges.items():
            yield GaugeMetricFamily(name, text, value())
        ended = CounterMetricFamily(
            "proxy_requests", "Requests that ended, by outcome.", labels=["outcome"]
        )
        for outcome, count in requests.items():
            ended.add_metric([outcome], count)
        yield ended
        turned_away = CounterMetricFamily(
            "proxy_refused",
            "Requests refused before they were accepted, by error code.",
            labels=["code"],
        )
        for code, count in refused.items():
            turned_away.add_metric([code], count)
        yield turned_away
        judged = CounterMetricFamily(
            "proxy_attempts", "Attempts, by verdict.", labels=["verdict"]
        )
        for verdict, count in attempts.items():
            judged.add_metric([verdict], count)
        yield judged
        yield overhead.family(
            "proxy_overhead_seconds",
            "Seconds from a request's arrival until it was sent upstream.",
        )


REGISTRY.register(_Counts())
