"""Metrics of a gateway worker: their registry, and what is counted rarely.

`request_metrics` counts requests. `scrape/` adds up the workers and writes the text for
Prometheus."""

import threading
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from libs.common.contracts.events import Cause
from libs.common.runtime.label_values import OTHER
from libs.common.upstream_answers.rate_limits import REASONS

MOST_CODES = 200  # error codes are the gateway's own and far fewer

Sample = tuple[tuple[str, ...], list[float]]
"""Label values, and numbers: one; of a histogram its buckets, then the sum of what was
observed; of a summary the count and the sum."""
Merge = Literal["sum", "min", "max"]


class Family(NamedTuple):
    """A metric. `merge`: what makes one gauge of those of several workers."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "summary"]
    text: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()  # of a histogram
    merge: Merge = "sum"


families: dict[str, tuple[Family, Callable[[], list[Sample]]]] = {}


def register(family: Family, read: Callable[[], list[Sample]]) -> None:
    """Add a metric whose samples `read` returns, or replace that of the same name."""
    families[family.name] = family, read


def watch(
    name: str, text: str, value: Callable[[], float], merge: Merge = "sum"
) -> None:
    """Add a gauge whose `value` is called when metrics are read."""
    family = Family(name, "gauge", text, merge=merge)
    register(family, lambda: [((), [float(value())])])


class Counter:
    """A counter with at most one label, for what is rare. May be used by threads. The
    number of label values is bounded by MOST_CODES."""

    def __init__(
        self, name: str, text: str, label: str | None = None, known: Sequence[str] = ()
    ) -> None:
        """`known`: label values that are there from the start."""
        self.counts: dict[str, int] = dict.fromkeys(known if label else ("",), 0)
        self._lock = threading.Lock()
        self._label = label
        labels = () if label is None else (label,)
        register(Family(name, "counter", text, labels), self._read)

    def inc(self, value: str = "", by: int = 1) -> None:
        with self._lock:
            if value not in self.counts and len(self.counts) >= MOST_CODES:
                value = OTHER
            self.counts[value] = self.counts.get(value, 0) + by

    def _read(self) -> list[Sample]:
        counts = dict(self.counts)
        if self._label is None:
            return [((), [count]) for count in counts.values()]
        return [((value,), [count]) for value, count in counts.items()]


class Histogram:
    """A histogram of seconds, by upper bounds."""

    __slots__ = ("_per_second", "bounds", "counts", "sum")

    def __init__(self, bounds_s: Sequence[float], per_second: int = 1) -> None:
        """`per_second`: 1000 if milliseconds are observed."""
        self._per_second = per_second
        self.bounds = tuple([bound * per_second for bound in bounds_s])
        self.counts = [0] * (len(bounds_s) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        # Compiled, a quarter of what `bisect` takes; and most values are small.
        i = 0
        for bound in self.bounds:
            if value <= bound:
                break
            i += 1
        self.counts[i] += 1
        self.sum += value

    def add(self, other: "Histogram") -> None:
        """Add what another one of the same bounds observed."""
        for i, count in enumerate(other.counts):
            self.counts[i] += count
        self.sum += other.sum

    def numbers(self) -> list[float]:
        """Not cumulative, and then the sum, in seconds."""
        return [*self.counts, self.sum / self._per_second]

    def totals(self) -> list[float]:
        """How many, and the sum in seconds."""
        return [sum(self.counts), self.sum / self._per_second]


refused = Counter(
    "proxy_refused_total",
    "Requests refused before they were accepted, by error code.",
    "code",
)
failovers = Counter(
    "proxy_failovers_total",
    "Attempts that followed a failed one, by the cause of that failure.",
    "cause",
    tuple(cause.value for cause in Cause),
)
ignored_limits = Counter(
    "proxy_ignored_limits_total",
    "Limits in x-ratelimit-* headers that are ignored, by reason.",
    "reason",
    REASONS,
)
queued = Counter(
    "proxy_queued_total",
    "Requests that waited in a queue, by how that ended.",
    "end",
    ("served", "refused", "left"),
)
QUEUE_BOUNDS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
queue_wait = Histogram(QUEUE_BOUNDS_S)
register(
    Family(
        "proxy_queue_wait_seconds",
        "histogram",
        "Seconds that requests waited in queues.",
        bounds=QUEUE_BOUNDS_S,
    ),
    lambda: [((), queue_wait.numbers())],
)


def count_refused(code: str) -> None:
    """Count a refused request. It gets no row, since there may be very many."""
    refused.inc(code)


def count_ignored_limit(reason: str) -> None:
    """Count a limit in an answer's headers that is not understood."""
    ignored_limits.inc(reason)
