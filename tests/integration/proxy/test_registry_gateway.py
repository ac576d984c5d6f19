"""Registered resources at a gateway that cannot unseal their keys, and aliases while
Redis is unreachable. The test acts as the router."""

import json
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from cryptography.fernet import Fernet

from libs.common.contracts.catalogue import Alias, Catalogue, Resource
from libs.common.providers.sealing import Sealer
from libs.common.settings.resources import resources_from_environment
from tests.support.databases.valkey import empty, running_valkey
from tests.support.processes.stack import Stack, gateway_stack
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")
OURS, OTHERS = (Fernet.generate_key().decode() for _ in range(2))
ALIAS = Alias(alias="fast", provider_id="acme", upstream_id="gpt-5.5-mini")
ASK = {"model": "fast", "input": "hi"}


def registered(stack: Stack, id_: str, key: str, sealed_with: str) -> Resource:
    return Resource(
        id=id_,
        name=id_,
        pool_id=None,
        account_id=id_,
        weight=1,
        base_url=stack.environ["PROXY_UPSTREAM_BASE_URL"],
        credential=f"sealed:{Sealer([sealed_with]).seal(key)}",
        provider_id="acme",
    )


async def publish(stack: Stack, version: str, *resources: Resource) -> None:
    ours = resources_from_environment(
        stack.environ, stack.environ["PROXY_UPSTREAM_BASE_URL"]
    )
    catalogue = Catalogue(
        version=version, resources=(*ours, *resources), aliases=(ALIAS,)
    )
    await stack.routing.publish(catalogue, version)

    async def adopted() -> bool:
        async with httpx.AsyncClient(timeout=60) as client:
            ready = await client.get(f"{stack.origin}/readyz")
        return bool(ready.json()["catalogue"] == version)

    await eventually(adopted)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    empty(valkey_server)
    folder = tmp_path_factory.mktemp("gateway")
    settings = {"PROXY_SECRET_ENCRYPTION_KEY": OURS, "PROXY_MAX_ATTEMPTS": "1"}
    async with gateway_stack(valkey_server, folder, **settings) as made:
        yield made


async def test_a_key_that_cannot_be_opened_is_passed_over(stack: Stack) -> None:
    lost = registered(stack, "acme-1", "sk-sim-a1", OTHERS)
    for number in (1, 2):
        good = registered(stack, "acme-2", "sk-sim-a1", OURS)
        good = good.model_copy(update={"weight": number})  # published again
        await publish(stack, f"one-lost-{number}", lost, good)
    async with httpx.AsyncClient(timeout=20) as http:
        answers = [
            await http.post(f"{stack.url}/responses", json=ASK) for _ in range(10)
        ]
    # On the first attempt, which is the only one.
    assert {a.headers["x-proxy-resource-id"] for a in answers} == {"acme-2"}
    assert {a.status_code for a in answers} == {200}
    states = {s.id: s for s in await stack.routing.states()}
    assert (states["acme-1"].requests, states["acme-1"].errors) == (0, 0)
    said = [
        json.loads(line)
        for line in stack.gateway.log.read_text().splitlines()
        if "credential_missing" in line
    ]
    assert [entry["resource"] for entry in said] == ["acme-1"]
    assert "PROXY_SECRET_ENCRYPTION_KEY" in said[0]["cause"]


async def test_an_alias_without_any_usable_key_fails_and_blames_nobody(
    stack: Stack,
) -> None:
    lost = registered(stack, "acme", "sk-sim-a1", OTHERS)
    await publish(stack, "all-lost", lost)
    async with httpx.AsyncClient(timeout=20) as http:
        answer = await http.post(f"{stack.url}/responses", json=ASK)
        plain = await http.post(
            f"{stack.url}/responses", json={**ASK, "model": "gpt-5.5"}
        )
    assert answer.status_code in (502, 503)
    assert plain.status_code == 200
    states = {s.id: s for s in await stack.routing.states()}
    assert states["acme"].health == "unknown"


async def test_aliases_are_followed_while_redis_is_away(tmp_path: Path) -> None:
    settings = {"PROXY_SECRET_ENCRYPTION_KEY": OURS, "PROXY_DRAIN_SECONDS": "0.5"}
    with ExitStack() as valkey:
        url = valkey.enter_context(running_valkey(tmp_path))
        async with (
            gateway_stack(url, tmp_path, **settings) as stack,
            httpx.AsyncClient(timeout=20) as http,
        ):
            resources = [
                registered(stack, f"acme-{n}", key, OURS)
                for n, key in ((1, "sk-sim-a1"), (2, "sk-sim-a2"))
            ]
            await publish(stack, "both", *resources)
            valkey.close()
            answers = [
                await http.post(f"{stack.url}/responses", json=ASK) for _ in range(8)
            ]
            assert {a.status_code for a in answers} == {200}
            homes = {a.headers["x-proxy-resource-id"] for a in answers}
            assert homes <= {"acme-1", "acme-2"}
            assert {a.json()["model"] for a in answers} == {"gpt-5.5-mini"}
