"""Checks that the router requests."""

import asyncio
import json
from typing import Any, cast

import pytest

from libs.common.contracts.catalogue import HealthState
from libs.common.errors import RedisAway
from libs.common.redis.check_queue import Orders
from libs.common.upstream_answers.verdicts import Verdict
from services.health.check_queue import CheckQueueWorker
from services.health.key_test import KeyTester
from services.health.prober import Check, Prober

pytestmark = pytest.mark.asyncio


class Desk:
    """One request, then the end."""

    def __init__(self, stop: asyncio.Event, *, away_first: bool = False) -> None:
        self.answers: dict[str, Any] = {}
        self._stop = stop
        self._away = away_first

    async def take(self) -> str | None:
        if self._away:
            self._away = False
            raise RedisAway
        return None if self.answers else "order-1"

    async def answer(self, order: str, answer: str) -> None:
        self.answers[order] = json.loads(answer)
        self._stop.set()


class Checker:
    async def check_all(self) -> list[Check]:
        verdict = Verdict(kind="refused", cause="401 revoked", latency_ms=3.5)
        return [Check("openai-1", HealthState.UNHEALTHY, verdict)]


async def test_an_order_is_answered_with_what_was_found() -> None:
    stop = asyncio.Event()
    desk = Desk(stop)
    service = CheckQueueWorker(
        cast(Orders, desk), cast(Prober, Checker()), cast(KeyTester, None)
    )
    await asyncio.wait_for(service.run(stop), 60)
    assert desk.answers == {
        "order-1": [
            {
                "resource_id": "openai-1",
                "health": "unhealthy",
                "verdict": "refused",
                "cause": "401 revoked",
                "latency_ms": 3.5,
            }
        ]
    }


async def test_it_comes_back_after_redis_was_away() -> None:
    stop = asyncio.Event()
    desk = Desk(stop, away_first=True)
    service = CheckQueueWorker(
        cast(Orders, desk), cast(Prober, Checker()), cast(KeyTester, None)
    )
    await asyncio.wait_for(service.run(stop), 60)
    assert "order-1" in desk.answers
