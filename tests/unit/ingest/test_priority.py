"""The priority of ingest, in a thread: on Linux each has its own. And its CPUs."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.ingest.priority import (
    BEHIND_S,
    CAUGHT_UP_S,
    NICENESS,
    Confined,
    Cpus,
    cpus,
    give_way,
    run_on,
)


def lowered(*, before: int = 0) -> int:
    if before > os.getpriority(os.PRIO_PROCESS, 0):
        os.setpriority(os.PRIO_PROCESS, 0, before)
    give_way()
    return os.getpriority(os.PRIO_PROCESS, 0)


def test_it_is_lower_than_that_of_gateways() -> None:
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(lowered).result() >= NICENESS


def test_an_even_lower_one_is_kept() -> None:
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(lowered, before=19).result() == 19


def test_where_it_is_forbidden_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    give_way()


def test_it_runs_on_one_of_few_cpus_while_it_keeps_up() -> None:
    chosen: list[Cpus] = []
    confined = Confined(frozenset({2, 3}), chosen.append)
    assert chosen == [{3}]
    confined.lagged("events", BEHIND_S + 1)
    assert chosen == [{3}, {2, 3}]
    confined.lagged("payloads", 0)
    confined.lagged("events", (BEHIND_S + CAUGHT_UP_S) / 2)
    assert len(chosen) == 2
    confined.lagged("events", 0)
    confined.lagged("events", 0)
    assert chosen == [{3}, {2, 3}, {3}]


@pytest.mark.parametrize("allowed", [set(), {0}, {0, 1, 2, 3}])
def test_elsewhere_it_runs_where_it_may(allowed: set[int]) -> None:
    chosen: list[Cpus] = []
    confined = Confined(frozenset(allowed), chosen.append)
    confined.lagged("events", BEHIND_S + 1)
    confined.lagged("events", 0)
    assert chosen == []


def test_all_threads_are_moved() -> None:
    before, over = cpus(), threading.Event()
    with ThreadPoolExecutor(1) as thread:
        waits = thread.submit(over.wait)
        ids = [int(each) for each in os.listdir("/proc/self/task")]
        try:
            run_on(frozenset({max(before)}))
            assert [os.sched_getaffinity(id_) for id_ in ids] == [
                {max(before)} for _ in ids
            ]
        finally:
            run_on(before)
            over.set()
        waits.result()
    assert cpus() == before


def test_where_cpus_cannot_be_chosen_nothing_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_getaffinity", refuse)
    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    assert cpus() == frozenset()
    run_on(frozenset({0}))
