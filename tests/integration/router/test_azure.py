"""A provider of type azure through all processes, before a stand-in of Azure OpenAI's
v1 API (libs/simulator/dialects.py)."""

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai import AsyncAzureOpenAI, AsyncOpenAI

from libs.common.providers.azure import resource_account
from libs.common.redis.shared_connection import connect
from libs.simulator.faults.faults import parse_script
from libs.simulator.faults.holding import EVERY_KEY, Holding
from libs.simulator.state.rates import Rate
from tests.integration.router.registry.world import FERNET, SOON_S, World
from tests.support.databases.valkey import empty
from tests.support.processes.fleet import Plan, running_fleet
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

pytestmark = pytest.mark.asyncio(loop_scope="module")
OURS = {"sk-sim-a": "acct-a"}
KEYS = ("0123456789abcdef" * 2, "fedcba9876543210" * 2)  # of one Azure resource
MODEL, LIMITED = "gpt-5.5", "gpt-5.4-nano"  # of the deployments
PLAN = Plan(
    OURS,
    gateways=1,
    services=("router", "health", "ingest"),
    settings={
        "PROXY_SECRET_ENCRYPTION_KEY": FERNET,
        "PROXY_HEARTBEAT_SECONDS": "0.2",
        "PROXY_HEALTH_CHECK_INTERVAL_SECONDS": "3600",
        "OPENAI_RESOURCE_POOL_IDS": "mixed",
    },
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    empty(valkey_server)
    folder = tmp_path_factory.mktemp("fleet")
    redis = connect(valkey_server)
    async with (
        Simulator(OURS) as ours,
        Simulator(dict.fromkeys(KEYS, "res-1"), azure=True) as azure,
        running_fleet(PLAN, ours, valkey_server, folder) as fleet,
    ):
        made = World(fleet, azure, redis, folder)
        yield made
        await made.http.aclose()
    await redis.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def azure(world: World) -> AsyncIterator[dict[str, Any]]:
    """A provider in the pool of the key from the environment; its two keys."""
    made = await world.provider(
        provider_type="azure", api_key=",".join(KEYS), pool_id="mixed"
    )
    await world.adopted()
    world.upstream.state.journal.clear()
    yield made
    world.upstream.state.faults.clear()
    world.upstream.state.rates.clear()
    for key in KEYS:
        world.upstream.restore(key)
    await world.clear()
    await world.adopted()


@pytest_asyncio.fixture(loop_scope="module")
async def alias(world: World, azure: dict[str, Any]) -> str:
    """A model that leads to Azure only."""
    return await world.alias(azure, upstream_id=MODEL)


def client(world: World, **more: Any) -> AsyncOpenAI:
    return AsyncOpenAI(api_key="anything", base_url=world.url, max_retries=0, **more)


def sent(world: World) -> list[dict[str, str]]:
    """The headers of the requests and upgrades that Azure got."""
    return [
        {name.lower(): value for name, value in entry["headers"]}
        for entry in world.received()
        if entry["headers"]
    ]


def script(world: World, fault: dict[str, Any], **more: Any) -> None:
    world.upstream.state.faults.add(parse_script({"fault": fault, **more}))


async def test_it_is_registered_and_tested(world: World, azure: dict[str, Any]) -> None:
    assert (azure["provider_type"], azure["auth_type"]) == ("azure", "api_key")
    document = await world.http.get(f"{world.fleet.router.origin}/openapi.json")
    asked = document.json()["components"]["schemas"]["ProviderAsk"]["properties"]
    assert "azure" in asked["provider_type"]["enum"]
    tested = await world.admin("POST", "providers/test", id=azure["id"])
    assert tested["ok"], tested
    assert all(MODEL in result["models"] for result in tested["results"])
    account = resource_account(azure["base_url"])
    shown = await world.resources()
    assert {shown[id_]["account_id"] for id_ in azure["resources"]} == {account}
    wrong = await world.admin(
        "POST", "providers/test", provider_type="azure", api_key="0" * 32,
        base_url=azure["base_url"],
    )  # fmt: skip
    assert [r["verdict"] for r in wrong["results"]] == ["refused"]
    as_bearer = {"id": azure["id"], "provider_type": "custom", "api_key": KEYS[0]}
    refused = await world.admin(
        "POST", "providers/test", base_url=azure["base_url"], **as_bearer
    )
    assert [r["verdict"] for r in refused["results"]] == ["refused"]


async def test_the_openai_client_is_served(world: World, alias: str) -> None:
    """As one answer, as a stream, on a socket, with state and files."""
    async with client(world) as ai:
        raw = await ai.responses.with_raw_response.create(model=alias, input="one")
        assert {"apim-request-id", "x-ms-region", "x-request-id"} <= set(raw.headers)
        first = raw.parse()
        async with ai.responses.stream(
            model=alias, input="two", previous_response_id=first.id
        ) as stream:
            second = await stream.get_final_response()
        assert second.previous_response_id == first.id
        async with ai.responses.connect() as socket:
            await socket.response.create(model=alias, input="three")
            told = [event.type async for event in until_completed(socket)]
        assert told[-1] == "response.completed"
    for headers in sent(world):
        assert headers["api-key"] in KEYS
        upgrade = "upgrade" in headers
        assert ("authorization" in headers) is upgrade
        if upgrade:
            assert headers["authorization"] == f"Bearer {headers['api-key']}"


async def until_completed(socket: Any) -> AsyncIterator[Any]:
    async for event in socket:
        yield event
        if event.type == "response.completed":
            return


async def test_files_and_models_pass(world: World, azure: dict[str, Any]) -> None:
    own = await world.provider(provider_type="azure", api_key=KEYS[0], pool_id="alone")
    await world.adopted()
    async with client(world, default_headers={"x-pool-id": "alone"}) as ai:
        upload = ("a.txt", io.BytesIO(b"text"))
        made = await ai.files.create(file=upload, purpose="user_data")
        assert (await ai.files.content(made.id)).content == b"text"
        assert MODEL in {model.id async for model in ai.models.list()}
    assert {headers["api-key"] for headers in sent(world)} == {KEYS[0]}
    assert own["resources"] == [own["id"]]


async def test_an_azure_client_sends_its_proxy_key_as_api_key(
    world: World, alias: str
) -> None:
    minted = await world.admin("POST", "keys", 201, name="azure client")
    async with AsyncAzureOpenAI(
        api_key=minted["secret"],
        base_url=world.url,
        api_version="preview",
        max_retries=0,
    ) as ai:
        raw = await ai.responses.with_raw_response.create(model=alias, input="hi")
        async with ai.responses.connect() as socket:
            await socket.response.create(model=alias, input="three")
            told = [event.type async for event in until_completed(socket)]
        assert told[-1] == "response.completed"
    request, upgrade, _ = world.received()
    assert request["query"] == "api-version=preview"
    assert upgrade["status"] == 101
    for headers in sent(world):
        assert headers["api-key"] in KEYS
        assert minted["secret"] not in str(headers)
    row = await world.row(raw.http_response)  # type: ignore[arg-type]
    assert row["proxy_key_id"] == minted["id"]
    unknown = await world.ask(alias, api_key="rpx_unknown")
    assert unknown.status_code == 401


async def test_a_deployment_that_does_not_exist_blames_no_key(
    world: World, azure: dict[str, Any]
) -> None:
    missing = await world.alias(azure, upstream_id="not-deployed")
    async with client(world) as ai:
        with pytest.raises(openai.NotFoundError) as refused:
            await ai.responses.create(model=missing, input="hi")
    assert refused.value.code == "DeploymentNotFound"
    row = await world.row(refused.value.response)  # type: ignore[arg-type]
    assert (row["error_code"], row["attempts"]) == ("DeploymentNotFound", 2)
    causes = [decision["cause"] for decision in row["decisions"]]
    assert causes[:2] == [None, "model_refused"]  # then there was no other
    # Another upstream of the pool has it.
    for _ in range(3):
        served = await world.ask("not-deployed", x_pool_id="mixed")
        assert served.headers["x-proxy-resource-id"] == "openai-1"
    async with (
        client(world, default_headers={"x-pool-id": "mixed"}) as ai,
        ai.responses.connect() as socket,
    ):
        await socket.response.create(model="not-deployed", input="hi")
        told = [event.type async for event in until_completed(socket)]
    assert told[-1] == "response.completed"
    states = await world.resources()
    assert {states[id_]["health"] for id_ in azure["resources"]} <= {
        "healthy",
        "unknown",
    }


async def test_a_dead_key_is_left_and_comes_back(
    world: World, azure: dict[str, Any], alias: str
) -> None:
    ids = dict(zip(KEYS, azure["resources"], strict=True))
    world.upstream.revoke(KEYS[0])
    async with client(world) as ai, ai.responses.connect() as socket:
        await socket.response.create(model=alias, input="hi")
        told = [event.type async for event in until_completed(socket)]
    assert told[-1] == "response.completed"

    async def left() -> bool:
        answer = await world.ask(alias)
        assert answer.status_code == 200
        assert answer.headers["x-proxy-resource-id"] == ids[KEYS[1]]
        state = (await world.resources())[ids[KEYS[0]]]
        return bool(state["health"] == "unhealthy")

    await eventually(left, SOON_S)
    dead = (await world.resources())[ids[KEYS[0]]]
    assert dead["last_error"] == "401 refused"
    world.upstream.restore(KEYS[0])
    await check_all(world)
    assert (await world.resources())[ids[KEYS[0]]]["health"] == "healthy"


async def test_a_limit_of_the_deployment_rests_it_for_both_keys(
    world: World, azure: dict[str, Any], alias: str
) -> None:
    """Both rest after one 429; another model is served, and another upstream of the
    pool serves this one."""
    world.upstream.state.rates.limit(Rate("res-1", LIMITED, tokens=60, level=0))
    world.upstream.state.journal.clear()
    ours = world.fleet.simulator.state.holding
    ours.hold(EVERY_KEY)
    asking = []
    for number in range(1, 5):  # one of the first two tries Azure
        asking.append(asyncio.create_task(world.ask(LIMITED, x_pool_id="mixed")))
        await waiting(number, ours)
    ours.release()
    for answer in await asyncio.gather(*asking):
        assert answer.headers["x-proxy-resource-id"] == "openai-1"
    (entry,) = world.received()
    assert entry["status"] == 429
    states = await world.resources()
    for id_ in azure["resources"]:
        assert states[id_]["paused_models"] == [LIMITED]
        (told,) = (li for li in states[id_]["limits"] if li["model"] == LIMITED)
        assert (told["limit_tokens"], told["remaining_tokens"]) == (60, 0)
        assert told["tokens_reset_at"] is not None
    assert (await world.ask(alias)).status_code == 200
    limited = await world.ask(await world.alias(azure, upstream_id=LIMITED))
    assert error(limited) == (429, "429")
    assert int(limited.headers["retry-after"]) >= 1


async def test_a_pool_may_have_keys_of_both_kinds(
    world: World, azure: dict[str, Any]
) -> None:
    """Whichever kind dies, the other one serves."""
    holding = [s.state.holding for s in (world.upstream, world.fleet.simulator)]
    for each in holding:
        each.hold(EVERY_KEY)
    asking = [asyncio.create_task(world.ask(x_pool_id="mixed")) for _ in range(3)]
    await waiting(3, *holding)
    for each in holding:
        each.release()
    served = {a.headers["x-proxy-resource-id"] for a in await asyncio.gather(*asking)}
    assert served == {"openai-1", *azure["resources"]}
    for headers in sent(world):
        assert "authorization" not in headers
    world.fleet.simulator.revoke("sk-sim-a")
    try:
        for _ in range(4):
            answer = await world.ask(x_pool_id="mixed")
            assert answer.headers["x-proxy-resource-id"] in azure["resources"]
    finally:
        world.fleet.simulator.restore("sk-sim-a")
        await check_all(world)
    for key in KEYS:
        world.upstream.revoke(key)
    for _ in range(4):
        answer = await world.ask(x_pool_id="mixed")
        assert answer.headers["x-proxy-resource-id"] == "openai-1"


async def test_a_key_is_replaced_and_never_shown(world: World) -> None:
    made = await world.provider(provider_type="azure", api_key=KEYS[0], pool_id="one")
    await world.adopted()
    echo = {"error": {"code": "401", "message": f"api-key {KEYS[0]} is odd"}}
    # Not for a health check.
    match = {"path": "/openai/v1/responses"}
    script(world, {"status": 400, "body": echo}, match=match, times=1)
    shown = await world.ask(x_pool_id="one")
    assert shown.status_code == 400
    assert KEYS[0] not in shown.text
    assert "[upstream key]" in shown.text
    path = f"providers/{made['id']}"
    changed = await world.admin("PATCH", path, api_key=KEYS[1])
    assert changed["auth_type"] == "api_key"
    await world.adopted()
    world.upstream.state.journal.clear()
    assert (await world.ask(x_pool_id="one")).status_code == 200
    assert [headers["api-key"] for headers in sent(world)] == [KEYS[1]]
    assert not any(key in said for key in KEYS for said in world.said)
    await world.clear()


async def waiting(count: int, *holding: Holding) -> None:
    """So many answers are held back."""

    async def equal() -> bool:
        return count == sum(int(each.shown()["total"]) for each in holding)

    await eventually(equal, SOON_S)


async def check_all(world: World) -> None:
    async def checked() -> bool:
        """On a busy machine the health service may not take it within 3 s: 503."""
        url = f"{world.fleet.admin}/health/check"
        return (await world.http.post(url, json={})).status_code == 200

    await eventually(checked)


def error(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]
