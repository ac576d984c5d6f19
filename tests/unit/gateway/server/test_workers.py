"""What a worker knows of its parent. Integration tests cover processes and sockets."""

import os

import pytest

from libs.common.runtime.listening import LISTENING, PARENT
from services.gateway.server import workers


@pytest.mark.parametrize(
    ("told", "orphan"),
    [(str(os.getppid()), False), ("1234567890", True), (None, True)],
    ids=["its own", "another", "nobody"],
)
def test_a_worker_whose_parent_is_gone_is_an_orphan(
    monkeypatch: pytest.MonkeyPatch, told: str | None, orphan: bool
) -> None:
    if told is None:
        monkeypatch.delenv(PARENT, raising=False)
    else:
        monkeypatch.setenv(PARENT, told)
    assert workers.orphaned() is orphan
    assert PARENT not in os.environ  # its own children are not told


def test_who_is_no_worker_inherits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LISTENING, raising=False)
    assert workers.inherited() is None
