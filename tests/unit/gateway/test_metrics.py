"""What is counted, as Prometheus reads it."""

import pytest
from prometheus_client import generate_latest

from services.gateway import metrics
from services.gateway.metrics import Histogram


@pytest.mark.parametrize(
    ("seconds", "counts"),
    [
        (0.0, [1, 1, 1]),
        (0.1, [1, 1, 1]),  # a bound is in its bucket
        (0.11, [0, 1, 1]),
        (5.0, [0, 0, 1]),
    ],
)
def test_a_histogram_counts_up_to_each_bound(seconds: float, counts: list[int]) -> None:
    histogram = Histogram((0.1, 1.0))
    histogram.observe(seconds)
    family = histogram.family("x", "text")
    buckets = {s.labels["le"]: s.value for s in family.samples if "le" in s.labels}
    assert [buckets[bound] for bound in ("0.1", "1.0", "+Inf")] == counts
    sums = [s.value for s in family.samples if s.name == "x_sum"]
    assert sums == [seconds]


def test_what_is_watched_is_read_when_somebody_asks() -> None:
    amount = 3
    metrics.watch("proxy_test_things", "Of a test.", lambda: amount)
    assert b"proxy_test_things 3.0" in generate_latest()
    amount = 4
    assert b"proxy_test_things 4.0" in generate_latest()


def test_each_outcome_and_verdict_is_there_from_the_start() -> None:
    text = generate_latest().decode()
    for outcome in metrics.requests:
        assert f'proxy_requests_total{{outcome="{outcome}"}}' in text
    for verdict in metrics.attempts:
        assert f'proxy_attempts_total{{verdict="{verdict}"}}' in text
    assert "proxy_overhead_seconds_bucket" in text
