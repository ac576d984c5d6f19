"""Processes of the version before and of this one share Redis, SQL and the journals'
folder while clients send requests: docs/upgrade.md."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from libs.cli.commands import simulator_command
from tests.support.clients.steady import Load, steady_load
from tests.support.databases.sql import fetch
from tests.support.databases.valkey import running_valkey
from tests.support.processes.fleet import Member
from tests.support.processes.ports import free_port
from tests.support.processes.processes import Process, wait_for
from tests.support.processes.versions import OldMember, checked_out
from tests.support.processes.waiting import eventually

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(300)]

# Version 0.1, the last commit before isolation of tenants and checksums of journals.
BEFORE = "c03a9a29e71e512329fa4e8d27fc385f3e75b6b2"
KEYS = {"sk-a1": "a", "sk-a2": "a", "sk-b1": "b", "sk-b2": "b"}
# So that requests are under way whenever a process starts or ends.
PACE = {"delay_ms": 40, "event_gap_ms": 5}
STACK = ("ingest", "router", "health", "gateway")
UNDECIDED = """
    SELECT id FROM requests
    WHERE id NOT IN (SELECT request_id FROM decisions WHERE resource_id IS NOT NULL)
"""
# Requests of which both captured bodies are whole.
BODIES = """
    SELECT count(*) FROM requests WHERE 2 = (
        SELECT count(*) FROM payloads WHERE request_id = requests.id AND dropped IS NULL
    )
"""
INTERRUPTED = "SELECT id FROM requests WHERE outcome = 'interrupted'"


@dataclass
class Scene:
    """Redis, Postgres, an upstream, and how to start services of either version."""

    stack: AsyncExitStack
    common: Mapping[str, str]
    folder: Path
    code: Path  # of the version before
    upstream: str  # the simulator's control API

    def member(self, name: str, *, old: bool) -> Member:
        log = self.folder / f"{name}-{'old' if old else 'new'}-{free_port()}.log"
        if old:
            made: Member = OldMember(name, self.common, log, self.code)
        else:
            made = Member(name, self.common, log)
        self.stack.push_async_callback(made.end)
        return made

    async def start(self, name: str, *, old: bool) -> Member:
        """A process that is ready."""
        made = self.member(name, old=old)
        url = f"{made.origin}/readyz"
        await asyncio.to_thread(wait_for, made.process, url)
        return made

    def journals(self) -> list[Path]:
        return list((self.folder / "journal").iterdir())

    async def hold(self) -> None:
        """Let the upstream take requests and answer none of them."""
        async with httpx.AsyncClient(timeout=10) as client:
            (await client.post(f"{self.upstream}/hold", json={})).raise_for_status()

    async def held(self) -> bool:
        """Whether a request waits at the upstream, which means that it has a lease."""
        async with httpx.AsyncClient(timeout=10) as client:
            return bool((await client.get(f"{self.upstream}/held")).json()["total"])

    def fetch(self, statement: str) -> list[tuple[Any, ...]]:
        return fetch(self.common["PROXY_DATABASE_URL"], statement)


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For all tests, because the first process compiles it."""
    return checked_out(BEFORE, tmp_path_factory.mktemp("checkout") / "before")


@pytest_asyncio.fixture
async def scene(postgres_url: str, code: Path, tmp_path: Path) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        redis_url = stack.enter_context(running_valkey(tmp_path))
        port = free_port()
        keys = ",".join(f"{key}={account}" for key, account in KEYS.items())
        command = simulator_command("127.0.0.1", port, keys)
        simulator = Process(command, {}, tmp_path / "upstream.log")
        stack.callback(simulator.kill)
        control = f"http://127.0.0.1:{port}/__sim"
        await _slow_down(simulator, control)
        common = {
            "PROXY_REDIS_URL": redis_url,
            "PROXY_DATABASE_URL": postgres_url,
            "PROXY_UPSTREAM_BASE_URL": f"http://127.0.0.1:{port}/v1",
            "PROXY_DATA_DIR": str(tmp_path),
            "OPENAI_API_KEYS": ",".join(KEYS),
            "OPENAI_RESOURCE_ACCOUNT_IDS": ",".join(KEYS.values()),
        }
        yield Scene(stack, common, tmp_path, code, control)


async def _slow_down(simulator: Process, control: str) -> None:
    await asyncio.to_thread(wait_for, simulator, f"{control}/faults")
    async with httpx.AsyncClient(timeout=60) as client:
        script = {"times": None, "fault": PACE}
        (await client.post(f"{control}/faults", json=script)).raise_for_status()


async def stop(load: Load, member: Member) -> None:
    """Take it out of service and end it as an orchestrator does."""
    if member in load.gateways:
        load.gateways.remove(member)
    await member.end()


async def settled(router: Member) -> dict[str, Any]:
    """The ledger, once all is accounted for."""

    async def look() -> dict[str, Any]:
        async with httpx.AsyncClient(timeout=10) as client:
            ledger: dict[str, Any] = (
                await client.get(f"{router.origin}/admin/ledger")
            ).json()
        waiting = [ledger[name] for name in ("pending", "in_flight", "queue_depth")]
        quiet = ledger["balanced"] is True and not any((*waiting, ledger["unverified"]))
        return ledger if quiet else {}

    return await eventually(look, within_s=60)


def stored(scene: Scene, load: Load) -> None:
    """Assert that SQL has each whole answer, once, and nothing else."""
    assert load.failed == []
    assert scene.fetch("SELECT kind, reason FROM dead_letters") == []
    rows = scene.fetch("SELECT response_id, outcome FROM requests")
    assert Counter(outcome for _, outcome in rows) == {"completed": len(load.answers)}
    assert {id_ for id_, _ in rows} == {answer.response_id for answer in load.answers}
    assert scene.fetch(UNDECIDED) == []
    assert scene.fetch("SELECT DISTINCT degraded FROM decisions") == [(False,)]


def columns(scene: Scene, load: Load, gateway: Member) -> dict[str, set[str]]:
    """Transport -> the columns that rows of the gateway's requests have."""
    ids = {a.response_id for a in load.answers if a.gateway == gateway.url}
    filled: dict[str, set[str]] = {}
    for (row,) in scene.fetch("SELECT row_to_json(requests) FROM requests"):
        if row["response_id"] in ids:
            has = {name for name, value in row.items() if value is not None}
            has.discard("previous_response_id")  # first turns have none
            filled[row["transport"]] = filled.get(row["transport"], has) & has
    return filled


async def test_old_and_new_side_by_side(scene: Scene) -> None:
    """All new services start beside the old ones, which then end one by one."""
    old = {name: await scene.start(name, old=True) for name in STACK}
    async with steady_load([old["gateway"]]) as load:
        await load.serves(old["gateway"])
        new = {name: await scene.start(name, old=False) for name in STACK}
        load.gateways.append(new["gateway"])
        await load.serves(old["gateway"], new["gateway"], each=10)
        for name in STACK:
            await stop(load, old[name])
            await load.serves(*load.gateways)
    ledger = await settled(new["router"])
    assert ledger["accepted"] == ledger["stored"] == len(load.answers)
    stored(scene, load)
    before, after = (columns(scene, load, s["gateway"]) for s in (old, new))
    assert before == after
    assert set(after) == {"http", "sse", "ws"}

    async def bodies_stored() -> bool:
        """They have a stream of their own, which the ledger does not include."""
        return scene.fetch(BODIES) == [(len(load.answers),)]

    await eventually(bodies_stored)


async def test_gateways_and_routers_go_back(scene: Scene) -> None:
    """The way back, in the opposite order: gateways, then the router. Ingest stays."""
    new = {name: await scene.start(name, old=False) for name in STACK}
    async with steady_load([new["gateway"]]) as load:
        await load.serves(new["gateway"])
        gateway = await scene.start("gateway", old=True)
        load.gateways.append(gateway)
        await load.serves(gateway, new["gateway"], each=10)
        await stop(load, new["gateway"])
        await load.serves(gateway)
        router = await scene.start("router", old=True)
        await load.serves(gateway)
        await stop(load, new["router"])
        await load.serves(gateway, each=20)
    ledger = await settled(router)
    assert ledger["accepted"] == ledger["stored"] == len(load.answers)
    stored(scene, load)


async def test_gateways_wait_for_a_router_of_their_version(scene: Scene) -> None:
    """Whatever the order in which an orchestrator starts them."""
    await scene.start("ingest", old=False)
    await scene.start("router", old=True)
    gateway = scene.member("gateway", old=False)
    await gateway.ready()  # alive

    async def reason() -> list[str]:
        async with httpx.AsyncClient(timeout=10) as client:
            answer = await client.get(f"{gateway.origin}/readyz")
        assert answer.status_code == 503
        told: list[str] = answer.json()["degraded"]
        return [line for line in told if "older router" in line]

    (why,) = await eventually(reason)
    assert "An older router loaded functions without rpx_acquire_v4" in why
    await scene.start("router", old=False)
    url = f"{gateway.origin}/readyz"
    await asyncio.to_thread(wait_for, gateway.process, url)


async def test_an_old_gateway_leaves_newer_journals_alone(scene: Scene) -> None:
    """A new gateway that is killed beside an old one is recovered by the next new
    one."""
    await scene.start("ingest", old=False)
    router = await scene.start("router", old=False)
    old = await scene.start("gateway", old=True)
    killed = await scene.start("gateway", old=False)
    async with httpx.AsyncClient(timeout=30) as client:
        ask = {"model": "gpt-5.5", "input": "Say hello"}
        answers = [await client.post(f"{killed.url}/responses", json=ask)]
        await _uses_an_alias(client, router, old, killed)
        await scene.hold()
        under_way = asyncio.create_task(
            client.post(f"{killed.url}/responses", json={**ask, "stream": True})
        )
        await eventually(scene.held)
        killed.process.kill()
        with pytest.raises(httpx.HTTPError):
            await under_way

    async def reaped() -> bool:
        """By the router, after more time than between two looks of the old gateway."""
        return bool(scene.fetch(INTERRUPTED))

    await eventually(reaped)
    (journal,) = [f for f in scene.journals() if (f / "lock-2").exists()]
    await scene.start("gateway", old=False)

    async def recovered() -> bool:
        return not journal.exists()

    await eventually(recovered)
    assert answers[0].status_code == 200
    rows = scene.fetch("SELECT outcome FROM requests WHERE model = 'gpt-5.5'")
    assert sorted(rows) == [("completed",), ("interrupted",)]


async def _uses_an_alias(
    client: httpx.AsyncClient, router: Member, *gateways: Member
) -> None:
    """Of an alias with several targets an old gateway uses the first."""
    targets = []
    for priority, id_ in enumerate(("first", "second")):
        key = f"env:OPENAI_API_KEYS#{priority + 3}"
        given = {"id": id_, "credential_ref": key, "pool_id": id_}
        made = await client.post(f"{router.origin}/admin/providers", json=given)
        assert made.status_code == 201, made.text
        model = {"provider_id": id_, "upstream_id": f"gpt-{id_}"}
        targets.append(model | {"priority": priority})
    given_alias = {"alias": "fast", "targets": targets}
    made = await client.post(f"{router.origin}/admin/models", json=given_alias)
    assert made.status_code == 201, made.text
    for gateway in gateways:

        async def serves(url: str = gateway.url) -> str:
            ask = {"model": "fast", "input": "Say hello"}
            answer = await client.post(f"{url}/responses", json=ask)
            assert answer.status_code == 200, answer.text
            found = answer.headers["x-proxy-resource-id"]
            return found if answer.json()["model"] == "gpt-first" else ""

        assert await eventually(serves) == "first"
