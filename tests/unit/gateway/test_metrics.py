"""The registry of a gateway's metrics."""

import threading

import pytest

from services.gateway import metrics
from services.gateway.metrics import Counter, Histogram
from services.gateway.scrape.scrape import Scrape
from tests.support.clients.scrapes import Scraped


def shown() -> Scraped:
    return Scraped(Scrape().text().decode())


@pytest.mark.parametrize(
    ("seconds", "counts"),
    [
        (0.0, [1, 0, 0]),
        (0.1, [1, 0, 0]),  # a bound is in its bucket
        (0.11, [0, 1, 0]),
        (5.0, [0, 0, 1]),
    ],
)
def test_a_histogram_counts_by_bound(seconds: float, counts: list[int]) -> None:
    histogram = Histogram((0.1, 1.0))
    histogram.observe(seconds)
    assert histogram.numbers() == [*counts, seconds]


def test_what_is_watched_is_read_when_somebody_asks() -> None:
    amount = 3
    metrics.watch("proxy_test_things", "Of a test.", lambda: amount)
    assert shown().value("proxy_test_things") == 3
    amount = 4
    assert shown().value("proxy_test_things") == 4


def test_a_counter_counts_by_its_label() -> None:
    counter = Counter("proxy_test_a_total", "Of a test.", "why", ("known",))
    counter.inc("new", 2)
    found = shown()
    assert found.value("proxy_test_a_total", why="known") == 0
    assert found.value("proxy_test_a_total", why="new") == 2
    plain = Counter("proxy_test_b_total", "Of a test.")
    plain.inc(by=3)
    assert shown().value("proxy_test_b_total") == 3


def test_a_counters_values_are_bounded() -> None:
    counter = Counter("proxy_test_c_total", "Of a test.", "code")
    for number in range(2 * metrics.MOST_CODES):
        counter.inc(f"code{number}")
    assert len(counter.counts) == metrics.MOST_CODES + 1
    assert counter.counts["other"] == metrics.MOST_CODES


def test_threads_lose_no_count() -> None:
    counter = Counter("proxy_test_d_total", "Of a test.", "code")

    def count() -> None:
        for _ in range(2_000):
            counter.inc("x")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.counts["x"] == 8_000


def test_refusals_and_odd_limits_are_counted() -> None:
    before = shown()
    metrics.count_refused("body_too_large")
    metrics.count_ignored_limit("odd_unit")
    after = shown()
    for name, labels in (
        ("proxy_refused_total", {"code": "body_too_large"}),
        ("proxy_ignored_limits_total", {"reason": "odd_unit"}),
    ):
        assert after.value(name, **labels) == before.value(name, **labels) + 1
