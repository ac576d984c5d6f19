"""What a router finds impaired."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from libs.common.contracts.catalogue import HealthState
from libs.common.errors import RedisAway
from libs.common.runtime.service_gauges import DEGRADED
from services.router import conditions as module
from services.router.conditions import RouterConditions
from tests.support.memory.clock import timeless
from tests.unit.router.test_metrics import LEDGER, account, resource

LOST = LEDGER.model_copy(update={"problems": ("one is lost",)})
UNKNOWN = LEDGER.model_copy(update={"stored": None})


class World:
    """A proxy in which everything works."""

    def __init__(self) -> None:
        self.resources: Any = (resource("a"),)
        self.depth: int | None = 0
        self.ledger = LEDGER
        self.without_price: tuple[str, ...] = ()
        self.accounts: tuple[Any, ...] = (account("running"),)
        self.waits_s: float | None = None
        self.redis_away = False
        self.leader: str | None = "health-1"
        self.fails = False
        self.namespace_taken: str | None = None
        self.conditions = RouterConditions(
            self.state, self, self, self.prober, lambda: self.namespace_taken
        )

    async def state(self) -> Any:
        if self.fails:
            raise ZeroDivisionError
        return SimpleNamespace(
            resources=self.resources,
            queue_depth=self.depth,
            ledger=self.ledger,
            unpriced_models=self.without_price,
        )

    @property
    def last(self) -> Any:
        return SimpleNamespace(accounts=self.accounts)

    async def oldest_ms(self) -> int | None:
        if self.redis_away:
            raise RedisAway
        return None if self.waits_s is None else int((time.time() - self.waits_s) * 1e3)

    async def prober(self) -> str | None:
        if self.redis_away:
            raise RedisAway
        return self.leader


@pytest.mark.asyncio
async def test_nothing_is_impaired() -> None:
    world = World()
    assert await world.conditions.problems() == {}
    world.waits_s = 1.0
    assert await world.conditions.problems() == {}
    assert await world.conditions.oldest_s() == pytest.approx(1.0, abs=0.5)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"depth": None}, "redis"),
        ({"ledger": UNKNOWN}, "database"),
        ({"ledger": LOST}, "ledger"),
        ({"resources": (resource("a", health=HealthState.UNHEALTHY),
                        resource("b", health=HealthState.DEGRADED))}, "resources"),
        ({"accounts": (account("closed"), account("silent"))}, "gateways gw"),
        ({"waits_s": 2 * module.OLD_S}, "ingest"),
        ({"leader": None}, "health"),
        ({"without_price": ("m",)}, "prices"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
@pytest.mark.asyncio
async def test_what_is_impaired_is_named(given: dict[str, Any], part: str) -> None:
    world = World()
    for name, value in given.items():
        setattr(world, name, value)
    problems = await world.conditions.problems()
    assert set(problems) == {part}
    with capture_logs() as logs:
        world.conditions.note(problems)
        world.conditions.note({})
    assert [line["action"] for line in logs] == ["degraded_began", "degraded_ended"]


@pytest.mark.asyncio
async def test_a_part_is_measured_by_its_kind() -> None:
    world = World()
    world.conditions.note({"gateways gw-1": "silent"})
    assert DEGRADED.labels("gateways")._value.get() == 1
    assert DEGRADED.labels("redis")._value.get() == 0
    world.conditions.note({})
    assert DEGRADED.labels("gateways")._value.get() == 0


@pytest.mark.asyncio
async def test_two_redis_servers_with_one_namespace_are_said() -> None:
    world = World()
    world.namespace_taken = "another Redis"
    assert await world.conditions.problems() == {"shards": "another Redis"}


@pytest.mark.asyncio
async def test_while_redis_goes_away_nothing_else_is_blamed() -> None:
    world = World()
    world.redis_away = True
    assert await world.conditions.problems() == {}
    assert await world.conditions.oldest_s() is None


@pytest.mark.asyncio
async def test_without_resources_or_checks_nothing_is_impaired() -> None:
    world = World()
    world.resources, world.leader = (), None
    unchecked = RouterConditions(world.state, world, world, None, lambda: None)
    assert await unchecked.problems() == {}


@timeless
async def test_a_look_that_fails_is_repeated() -> None:
    world = World()
    world.fails = True
    with capture_logs() as logs:
        looking = asyncio.create_task(world.conditions.run())
        await asyncio.sleep(1.5 * module.EVERY_S)
        world.fails, world.leader = False, None
        await asyncio.sleep(module.EVERY_S)
        looking.cancel()
    assert [line["action"] for line in logs] == ["look_failed", "degraded_began"]
