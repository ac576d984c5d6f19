"""Background loops go on after every failure, and log each cause once."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from libs.common.errors import RedisAway
from services.router.rounds import Rounds

pytestmark = pytest.mark.asyncio


async def test_each_cause_is_counted_and_logged_once() -> None:
    registry, logged = CollectorRegistry(), list[str]()

    def log(message: str, **given: Any) -> None:
        logged.append(f"{message}, {given['action']}: {given['cause']}")

    failures = Counter("failures", "Failures.", registry=registry)
    rounds = Rounds(failures, "cannot", "failed", log)
    errors = [RedisAway("away"), RedisAway("away"), ValueError("odd"), None,
              RedisAway("away")]  # fmt: skip

    async def work() -> None:
        if error := errors.pop(0):
            raise error

    done = [await rounds.attempt(work) for _ in range(5)]
    assert done == [False, False, False, True, False]
    away = "cannot, failed: away"
    assert logged == [away, "cannot, failed: ValueError: odd", away]
    assert registry.get_sample_value("failures_total") == 4
