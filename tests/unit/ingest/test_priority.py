"""The priority of ingest, in a thread: on Linux each has its own."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.ingest.priority import NICENESS, give_way


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
