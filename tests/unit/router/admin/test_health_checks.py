"""Requests to the health service, and `POST /admin/health/check`."""

import json
from typing import Any

import pytest

from services.router.admin import health_checks
from services.router.admin.health_checks import Examiner, HealthCheck
from tests.support.values.admin import client, problem

FINDING = {
    "resource_id": "openai-1", "health": "healthy", "verdict": "ok", "cause": "",
    "latency_ms": 1.5,
}  # fmt: skip


PATIENCE_S = 60.0  # only a failure takes that long


class Orders:
    """A health service that answers, is slow, or is absent."""

    def __init__(self) -> None:
        self.answers: list[bytes | None] = [json.dumps([FINDING]).encode()]
        self.untaken = True
        self.placed: list[str] = []
        self.withdrawn = 0

    async def place(self, order: str) -> None:
        self.placed.append(order)

    async def fetch(self, order: str) -> bytes | None:
        assert order == self.placed[-1]
        return self.answers.pop(0) if self.answers else None

    async def withdraw(self, order: str) -> bool:
        assert order == self.placed[-1]
        self.withdrawn += 1
        return self.untaken


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> Orders:
    monkeypatch.setattr(health_checks, "UNTAKEN_S", PATIENCE_S)
    return Orders()


def check(orders: Orders, patience_s: float = PATIENCE_S) -> Any:
    api = client({"/check": HealthCheck(Examiner(orders, patience_s))})
    return api.simulate_post("/check")


def test_a_check_gives_the_findings(orders: Orders) -> None:
    assert check(orders).json == {"data": [FINDING]}
    assert orders.withdrawn == 0


def test_an_answer_is_asked_for_again(orders: Orders) -> None:
    orders.answers = [None, None, b"[]"]
    assert check(orders).json == {"data": []}


@pytest.mark.parametrize(("untaken", "tries"), [(True, 1), (False, 2)])
def test_an_order_that_was_taken_is_waited_for(
    orders: Orders, untaken: bool, tries: int
) -> None:
    orders.answers, orders.untaken = [], untaken
    assert problem(check(orders, 0.01))[:2] == (503, "health_unreachable")
    assert orders.withdrawn == tries


@pytest.mark.asyncio
async def test_every_order_has_an_id_and_what_is_wanted(orders: Orders) -> None:
    orders.answers = [b"1", b"2"]
    examiner = Examiner(orders, PATIENCE_S)
    assert [await examiner.examine(), await examiner.examine('{"keys":[]}')] == [1, 2]
    whole, wanted = orders.placed
    assert " " not in whole
    id_, _, asked = wanted.partition(" ")
    assert (asked, id_ != whole) == ('{"keys":[]}', True)
