"""Rounds of checks, and when they are due."""

import asyncio
from collections.abc import Callable

import httpx
import pytest

from libs.common.contracts.catalogue import Catalogue, HealthState, Resource
from libs.common.errors import NoCatalogue, RedisAway
from libs.common.providers.credentials import Credentials
from libs.common.providers.rules import ProviderRules
from libs.common.providers.sealing import Sealer
from libs.common.upstream_answers.verdicts import Verdict
from services.health.prober import Check, CheckRequest, Prober, Schedule
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio
RULES = ProviderRules.read({"PROXY_UPSTREAM_BASE_URL": "http://upstream/v1"})
CREDENTIALS = Credentials({"OPENAI_API_KEY": "sk-one"}, Sealer(()), RULES)


def resource(id_: str, credential: str = "env:OPENAI_API_KEY") -> Resource:
    return Resource(
        id=id_,
        name=id_,
        pool_id=None,
        account_id=id_,
        weight=1,
        base_url="http://upstream/v1",
        credential=credential,
    )


class Routing:
    """Records verdicts."""

    def __init__(self, *resources: Resource) -> None:
        self.resources = resources
        self.told: dict[str, Verdict] = {}
        self.accounts: dict[str, str] = {}

    async def catalogue(self) -> Catalogue:
        return Catalogue(version="v1", resources=self.resources)

    async def learn_account(self, resource_id: str, account_id: str) -> bool:
        self.accounts[resource_id] = account_id
        return True

    async def verdict(self, resource_id: str, verdict: Verdict) -> HealthState:
        self.told[resource_id] = verdict
        return HealthState.HEALTHY if verdict.kind == "ok" else HealthState.UNKNOWN


def prober(
    routing: Routing,
    handler: Callable[[httpx.Request], httpx.Response],
    timeout_s: float = 5.0,
) -> Prober:
    client = httpx.AsyncClient(transport=httpx.MockTransport(handler))
    return Prober(routing, client, CheckRequest("models", timeout_s), CREDENTIALS)


async def test_each_resource_is_asked_with_its_key() -> None:
    asked: list[tuple[str, str]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append((str(request.url), request.headers["authorization"]))
        return httpx.Response(200, json={"data": []})

    routing = Routing(resource("a"), resource("b"))
    checks = await prober(routing, handler).check_all()
    assert asked == [("http://upstream/v1/models", "Bearer sk-one")] * 2
    assert [(c.resource_id, c.health) for c in checks] == [
        ("a", HealthState.HEALTHY),
        ("b", HealthState.HEALTHY),
    ]
    assert routing.told["a"].kind == "ok"
    assert routing.told["a"].latency_ms is not None


async def test_an_azure_resource_is_asked_with_api_key() -> None:
    asked: list[httpx.Headers] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers)
        denied = {"error": {"code": "401", "message": "Access denied"}}
        return httpx.Response(401, json=denied)

    azure = resource("a").model_copy(update={"auth_type": "api_key"})
    routing = Routing(azure)
    await prober(routing, handler).check_all()
    ((sent),) = asked
    assert (sent["api-key"], "authorization" in sent) == ("sk-one", False)
    told = routing.told["a"]
    assert (told.kind, told.cause) == ("refused", "401 refused")


async def test_a_key_that_is_not_here_blames_nobody() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise AssertionError("asked without a key")

    routing = Routing(resource("a", "env:PROVIDER_NOT_HERE"))
    await prober(routing, handler).check_all()
    told = routing.told["a"]
    assert (told.kind, told.cause) == ("neutral", "its key cannot be resolved here")


async def test_no_connection_is_a_fault() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    routing = Routing(resource("a"))
    await prober(routing, handler).check_all()
    assert routing.told["a"] == Verdict(kind="fault", cause="cannot connect")


async def test_an_answer_that_never_ends_is_a_fault() -> None:
    async def stuck(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    routing = Routing(resource("a"))
    client = httpx.AsyncClient(transport=httpx.MockTransport(stuck))
    await Prober(routing, client, CheckRequest("models", 0.01), CREDENTIALS).check_all()
    assert routing.told["a"] == Verdict(kind="fault", cause="check timed out")


class World:
    """A lease, a catalogue and a count of rounds, for a schedule."""

    def __init__(self) -> None:
        self.leads = True
        self.away = False
        self.current: str | None = "v1"
        self.rounds = 0
        self.fails: Exception | None = None
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def hold(self) -> bool:
        if self.away:
            raise RedisAway
        return self.leads

    async def version(self) -> str | None:
        return self.current

    async def check_all(self) -> list[Check]:
        self.rounds += 1
        await self.go_on.wait()
        if self.fails:
            raise self.fails
        return []

    def schedule(self, interval_s: float = 100) -> Schedule:
        return Schedule(self.check_all, self, self.version, interval_s)


async def tick(schedule: Schedule, now: float = 0) -> None:
    await schedule._tick(now)
    await asyncio.sleep(0)  # lets the round begin


async def test_the_first_round_is_at_once_and_the_next_after_the_interval() -> None:
    world = World()
    schedule = world.schedule(interval_s=100)
    rounds = []
    for now in (0, 1, 89, 111, 112):
        await tick(schedule, now)
        rounds.append(world.rounds)
    assert rounds == [1, 1, 1, 2, 2]


async def test_only_the_leader_checks() -> None:
    world = World()
    world.leads = False
    schedule = world.schedule()
    await tick(schedule)
    assert (world.rounds, schedule.leads) == (0, False)
    world.leads = True
    await tick(schedule)
    assert (world.rounds, schedule.leads) == (1, True)


async def test_a_changed_catalogue_is_checked_at_once() -> None:
    world = World()
    schedule = world.schedule()
    await tick(schedule)
    world.current = "v2"
    await tick(schedule, 1)
    assert world.rounds == 2


async def test_a_catalogue_that_came_back_is_checked_at_once() -> None:
    world = World()
    schedule = world.schedule()
    await tick(schedule)
    world.current = None
    await tick(schedule, 1)
    world.current = "v1"
    await tick(schedule, 2)
    assert world.rounds == 2


async def test_a_slow_round_is_not_joined_by_another() -> None:
    world = World()
    world.go_on.clear()
    schedule = world.schedule(interval_s=10)
    await tick(schedule)
    await tick(schedule, 100)
    assert world.rounds == 1
    world.go_on.set()
    await asyncio.sleep(0)
    await tick(schedule, 101)
    assert world.rounds == 2


@pytest.mark.parametrize("error", [RedisAway(), NoCatalogue()])
async def test_a_round_that_failed_is_soon_repeated(error: Exception) -> None:
    world = World()
    world.fails = error
    schedule = world.schedule()
    await tick(schedule)
    await tick(schedule, 1)
    assert world.rounds == 2


async def test_while_redis_is_away_nobody_leads() -> None:
    world = World()
    schedule = world.schedule()
    await tick(schedule)
    world.away = True
    await tick(schedule, 1)
    assert (schedule.leads, world.rounds) == (False, 1)


async def test_what_nobody_expected_ends_the_loop() -> None:
    world = World()
    world.fails = ZeroDivisionError()
    schedule = world.schedule(interval_s=0.01)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(schedule.run(asyncio.Event()), 60)


async def test_stopping_cancels_a_round_under_way() -> None:
    world = World()
    world.go_on.clear()
    stop = asyncio.Event()
    running = asyncio.create_task(world.schedule().run(stop))

    async def begun() -> bool:
        return world.rounds == 1

    await eventually(begun)
    stop.set()
    await asyncio.wait_for(running, 60)
