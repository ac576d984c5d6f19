"""`/metrics` of a gateway with several workers."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog

from services.gateway import metrics
from services.gateway.metrics import Counter
from services.gateway.scrape import scrape as module
from services.gateway.scrape import slots
from services.gateway.scrape.scrape import Scrape
from services.gateway.scrape.slots import Slots
from services.gateway.scrape.snapshot import Snapshot, Values
from tests.support.clients.scrapes import Scraped

# Counters are of the process, so the sibling is a snapshot that was written for it.
COUNTER = Counter("proxy_test_served_total", "Of a test.", "what")
metrics.watch("proxy_test_open", "Of a test.", lambda: 2)
NAME, OPEN = "proxy_test_served_total", "proxy_test_open"


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = slots.create()
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def dead() -> int:
    """The id of a process that ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def write(memory: int, position: int, pid: int, served: int, open_: int) -> None:
    values: Values = {NAME: [(("a",), [float(served)])], OPEN: [((), [float(open_)])]}
    assert Slots(memory, position, 2).write(Snapshot(pid, values).encoded())


def shown(scrape: Scrape) -> Scraped:
    return Scraped(scrape.text().decode())


@pytest.fixture(autouse=True)
def none_served() -> None:
    COUNTER.counts.clear()


def test_the_worker_that_is_asked_adds_the_others(memory: int) -> None:
    COUNTER.inc("a", 10)
    write(memory, 1, os.getpid(), served=5, open_=7)
    found = shown(Scrape(Slots(memory, 0, 2)))
    assert found.value(NAME, what="a") == 15
    assert found.value(OPEN) == 2 + 7
    assert found.value("proxy_workers") == 1  # the snapshot does not say


def test_a_dead_worker_keeps_its_counts_and_loses_its_gauges(
    memory: int, dead: int
) -> None:
    COUNTER.inc("a", 10)
    write(memory, 1, dead, served=5, open_=7)
    found = shown(Scrape(Slots(memory, 0, 2)))
    assert found.value(NAME, what="a") == 15
    assert found.value(OPEN) == 2


def test_its_successor_continues_where_it_ended(memory: int, dead: int) -> None:
    write(memory, 0, dead, served=5, open_=7)
    scrape = Scrape(Slots(memory, 0, 2))
    COUNTER.inc("a", 1)
    for _ in range(3):  # it is added once, however often it is published
        scrape.publish()
    other = shown(Scrape(Slots(memory, 1, 2)))
    found = shown(scrape)
    assert found.value(NAME, what="a") >= 6
    assert found.value(OPEN) == 2 + 2
    assert other.value(NAME, what="a") == 6 + 1  # both are this process


def test_a_sibling_that_cannot_be_read_counts_as_before(memory: int) -> None:
    scrape = Scrape(Slots(memory, 0, 2))
    write(memory, 1, os.getpid(), served=5, open_=7)
    assert shown(scrape).value(NAME, what="a") == 5
    assert Slots(memory, 1, 2).write(b"not a snapshot")
    assert shown(scrape).value(NAME, what="a") == 5


def test_what_does_not_fit_is_said_once(
    memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "HALF_BYTES", 10)
    scrape = Scrape(Slots(memory, 0, 2))
    with structlog.testing.capture_logs() as logs:
        scrape.publish()
        scrape.publish()
    assert [line["action"] for line in logs] == ["metrics_too_large"]


def test_a_gateway_of_one_worker_publishes_nothing() -> None:
    COUNTER.inc("a", 3)
    scrape = Scrape()
    scrape.publish()
    assert shown(scrape).value(NAME, what="a") == 3


def test_the_process_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    found = shown(Scrape())
    assert found.value("process_cpu_seconds_total") > 0
    assert found.value("process_resident_memory_bytes") > 1_000_000
    assert found.value("process_start_time_seconds") > 1_600_000_000


@pytest.mark.parametrize(
    ("error", "alive"),
    [(None, True), (PermissionError, True), (ProcessLookupError, False)],
)
def test_who_is_alive(
    error: type[OSError] | None, alive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: int) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(os, "kill", kill)
    assert module._is_alive(1) is alive
