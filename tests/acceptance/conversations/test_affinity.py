"""Conversations find their account again: after Redis and the gateway's memory were
lost, by the account that upstreams report for their keys, and when the account is
gone."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
import pytest_asyncio
from openai import AsyncOpenAI, BadRequestError

from libs.common.redis.shared_connection import connect
from tests.support.processes.fleet import Fleet, Plan, running_fleet
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

pytestmark = pytest.mark.asyncio

APART = {"sk-a": "acct-a", "sk-b": "acct-b"}
SIBLINGS = {"sk-a1": "acct-a", "sk-a2": "acct-a", "sk-b": "acct-b"}
CONVERSATIONS = 6
MODEL = "gpt-5.5"
STREAM = "telemetry:events"
ENCRYPTED: Any = {"store": False, "include": ["reasoning.encrypted_content"]}


class Standing(Protocol):
    def __call__(
        self, keys: dict[str, str], *services: str, **settings: str
    ) -> AbstractAsyncContextManager[Fleet]: ...


@pytest_asyncio.fixture
async def standing(valkey: str, tmp_path: Path) -> Standing:
    @asynccontextmanager
    async def stand(
        keys: dict[str, str], *services: str, **settings: str
    ) -> AsyncIterator[Fleet]:
        async with Simulator(keys) as simulator:
            plan = Plan(keys, 2, ("router", *services), settings)
            async with running_fleet(plan, simulator, valkey, tmp_path) as fleet:
                yield fleet

    return stand


@dataclass
class Made:
    """What one conversation created at its account."""

    response: str
    output: list[Any]
    conversation: str
    file: str
    store: str


async def make(anyone: AsyncOpenAI, number: int) -> Made:
    """Create objects that must share an account, within one session."""
    openai = anyone.with_options(default_headers={"x-session-id": f"s-{number}"})
    first = await openai.responses.create(model=MODEL, input="hi")
    conversation = await openai.conversations.create()
    file = await openai.files.create(file=b"text", purpose="user_data")
    store = await openai.vector_stores.create(name="v")
    output = [item.to_dict() for item in first.output]
    return Made(first.id, output, conversation.id, file.id, store.id)


async def go_on(openai: AsyncOpenAI, made: Made) -> None:
    """Use every kind of id that other accounts do not know; raises if one is
    refused."""
    again: list[Any] = [
        {"role": "user", "content": "hi"},
        *made.output,
        {"role": "user", "content": "on"},
    ]
    part = {"type": "input_file", "file_id": made.file}
    create = openai.responses.create
    await create(model=MODEL, input="on", previous_response_id=made.response)
    await create(model=MODEL, input="on", conversation=made.conversation)
    await create(model=MODEL, input=again)
    await create(model=MODEL, input=[{"role": "user", "content": [part]}])  # type: ignore[list-item, misc]
    await openai.responses.retrieve(made.response)
    await openai.files.retrieve(made.file)
    await openai.vector_stores.files.create(made.store, file_id=made.file)


def client(fleet: Fleet, gateway: int = 0) -> AsyncOpenAI:
    url = fleet.gateways[gateway].url
    return AsyncOpenAI(base_url=url, api_key="any", max_retries=0)


@pytest.mark.parametrize("lost", ["redis", "redis and gateway"])
async def test_state_is_found_again(standing: Standing, valkey: str, lost: str) -> None:
    """By the gateway's memory, and by SQL alone."""
    async with standing(APART, "ingest") as fleet:
        async with client(fleet) as openai:
            made = [await make(openai, n) for n in range(CONVERSATIONS)]
        await eventually(fleet.settled)
        if lost == "redis and gateway":
            await asyncio.to_thread(fleet.gateways[0].process.kill)
        redis = connect(valkey)
        await redis.flushall()
        await redis.aclose()
        survivor = int(
            lost == "redis and gateway"
        )  # the gateway that served none of the requests
        async with client(fleet, survivor) as openai:
            for one in made:
                await go_on(openai, one)
        looked_up = await lookups(fleet, survivor)
        assert (looked_up["sql"] > 0) == (lost == "redis and gateway"), looked_up


async def test_ids_nobody_knows_are_looked_for_once(standing: Standing) -> None:
    async with standing(APART, "ingest") as fleet, client(fleet) as openai:
        for _ in range(4):
            with pytest.raises(BadRequestError) as refused:
                await openai.responses.create(
                    model=MODEL, input="on", previous_response_id="resp_nobody"
                )
            assert refused.value.code == "previous_response_not_found"
        assert (await lookups(fleet))["nowhere"] == 1


async def test_keys_whose_account_upstream_names_are_siblings(
    standing: Standing,
) -> None:
    settings = {
        "OPENAI_RESOURCE_ACCOUNT_IDS": "",
        "OPENAI_RESOURCE_POOL_IDS": "mine,mine,other",
    }
    async with standing(SIBLINGS, **settings) as fleet, client(fleet) as openai:

        async def named() -> bool:
            # One request each, so that the router learns the account.
            await openai.responses.create(model=MODEL, input="hi")
            accounts = [r["account_id"] for r in (await fleet.state())["resources"]]
            a, b = "acct-a/proj_acct-a", "acct-b/proj_acct-b"
            return accounts == [a, a, b]

        await eventually(named)
        raw = await openai.responses.with_raw_response.create(
            model=MODEL, input="hi", extra_headers={"x-pool-id": "mine"}
        )
        home = raw.headers["x-proxy-resource-id"]
        fleet.simulator.revoke(list(SIBLINGS)[int(home[-1]) - 1])
        again = await openai.responses.with_raw_response.create(
            model=MODEL, input="on", previous_response_id=raw.parse().id
        )
        moved = again.headers["x-proxy-resource-id"]
        assert {home, moved} == {"openai-1", "openai-2"}


async def test_an_account_that_is_gone_is_told_of_by_default(
    standing: Standing,
) -> None:
    async with standing(APART) as fleet, client(fleet) as openai:
        history, home = await reasoned(openai)
        fleet.simulator.revoke(list(APART)[int(home[-1]) - 1])
        with pytest.raises(BadRequestError) as refused:
            await openai.responses.create(model=MODEL, input=history, **ENCRYPTED)
        assert refused.value.code == "invalid_encrypted_content"
        assert "no working key left" in refused.value.message
        headers = refused.value.response.headers
        assert headers["x-proxy-reason"] == "affinity_owner_unavailable"


async def test_an_account_that_is_gone_is_replaced_when_allowed(
    standing: Standing, valkey: str
) -> None:
    settings = {"PROXY_REPLAY_WITHOUT_REASONING": "true"}
    async with standing(APART, **settings) as fleet, client(fleet) as openai:
        history, gone = await reasoned(openai)
        fleet.simulator.revoke(list(APART)[int(gone[-1]) - 1])
        for _ in range(3):
            raw = await openai.responses.with_raw_response.create(
                model=MODEL,
                input=history,
                extra_headers={"x-codex-turn-state": "of the account that is gone"},
                **ENCRYPTED,
            )
            assert raw.headers["x-proxy-reason"] == "replayed_without_reasoning"
            assert raw.headers["x-proxy-resource-id"] != gone
            output = [item.to_dict() for item in raw.parse().output]
            assert any(item["type"] == "reasoning" for item in output)
            history += [*output, {"role": "user", "content": "on"}]
        journal = fleet.simulator.state.journal.shown(None, bodies=False)
        served = [e for e in journal["entries"] if e["status"] == 200]
        assert not any("x-codex-turn-state" in dict(e["headers"]) for e in served)
    decisions = await events(valkey, "decision")
    reasons = [d["reason"] for d in decisions if d["resource_id"] != gone]
    assert reasons.count("replayed_without_reasoning") == 3


async def reasoned(openai: AsyncOpenAI) -> tuple[list[Any], str]:
    """A history with encrypted reasoning, as Codex sends it, and its resource."""
    raw = await openai.responses.with_raw_response.create(
        model=MODEL, input="hi", **ENCRYPTED
    )
    output = [item.to_dict() for item in raw.parse().output]
    assert any(item.get("encrypted_content") for item in output)
    history = [
        {"role": "user", "content": "hi"},
        *output,
        {"role": "user", "content": "on"},
    ]
    return history, raw.headers["x-proxy-resource-id"]


async def events(valkey: str, kind: str) -> list[dict[str, Any]]:
    """The stream's events of a kind, oldest first."""
    redis = connect(valkey)
    entries: Any = await redis.xrange(STREAM)
    await redis.aclose()
    wanted = kind.encode()
    return [json.loads(f[b"data"]) for _, f in entries if f[b"kind"] == wanted]


async def lookups(fleet: Fleet, gateway: int = 0) -> dict[str, int]:
    """How often a gateway looked up owners, by source."""
    origin = fleet.gateways[gateway].url.removesuffix("/v1")
    async with httpx.AsyncClient(timeout=60) as http:
        text = (await http.get(f"{origin}/metrics")).text
    found = {"memory": 0, "sql": 0, "nowhere": 0}
    for line in text.splitlines():
        if line.startswith("proxy_owner_lookups_total"):
            where, count = line.split('"')[1], line.split()[-1]
            found[where] = int(float(count))
    return found
