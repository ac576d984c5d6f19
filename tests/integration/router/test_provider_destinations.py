"""Allowed provider addresses, and which keys may be sent there: at registration, at
tests, and for rows that were written directly into SQL."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio
from cryptography.fernet import Fernet

from libs.simulator.server import RunningSimulator
from tests.support.clients.sockets import Visits, visited
from tests.support.databases.valkey import empty
from tests.support.processes.fleet import Fleet, Plan, running_fleet
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLAN = Plan(
    {"sk-sim-a": "acct-a"},
    gateways=1,
    services=("router", "health", "ingest"),
    settings={
        "PROXY_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
        "PROXY_HEARTBEAT_SECONDS": "0.2",
        "PROXY_HEALTH_CHECK_INTERVAL_SECONDS": "0.5",
        "PROXY_HEALTH_CHECK_TIMEOUT_SECONDS": "2",
        "PROVIDER_ACME_KEY": "sk-provider",
        "ACME_KEY": "sk-not-listed",
        "PROXY_MAX_ATTEMPTS": "1",
    },
)
NOT_FOR_PROVIDERS = "env:OPENAI_API_KEYS"


class Listener:
    """Records what it is sent, and answers 401."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.visits: Visits

    async def handle(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.visits.port}/v1"


class World:
    def __init__(self, fleet: Fleet, upstream: RunningSimulator) -> None:
        self.fleet = fleet
        self.upstream = upstream
        self.http = httpx.AsyncClient(timeout=20)
        self.numbers = count(1)

    async def admin(self, method: str, path: str, **body: Any) -> httpx.Response:
        return await self.http.request(
            method, f"{self.fleet.admin}/{path}", json=body or None
        )

    def provider(self, **fields: Any) -> dict[str, Any]:
        given = {"id": f"acme{next(self.numbers)}", "provider_type": "custom"}
        return {**given, **fields}

    async def states(self) -> dict[str, dict[str, Any]]:
        return {r["id"]: r for r in (await self.fleet.state())["resources"]}

    def log(self, name: str) -> str:
        folder = Path(self.fleet.database.removeprefix("sqlite:///")).parent
        return "".join(path.read_text() for path in folder.glob(f"{name}-*.log"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    empty(valkey_server)
    folder = tmp_path_factory.mktemp("destinations")
    async with (
        Simulator(PLAN.keys) as upstream,
        running_fleet(PLAN, upstream, valkey_server, folder) as fleet,
    ):
        world = World(fleet, upstream)
        yield world
        await world.http.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def thief() -> AsyncIterator[Listener]:
    listener = Listener()
    async with visited(listener.handle) as listener.visits:
        yield listener


def code(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    assert "sk-" not in answer.text
    return answer.status_code, error["code"], error["param"]


REFERENCES = [
    NOT_FOR_PROVIDERS,
    "env:OPENAI_API_KEYS#1",
    "env:OPENAI_RESOURCE_ACCOUNT_IDS",
    "env:PATH",
    "env:ACME_KEY",
]


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("path", ["providers", "providers/test"])
async def test_credential_references_can_be_sent_to_any_address(
    world: World, thief: Listener, path: str, reference: str
) -> None:
    """A reference to an operator's variable must not be sent to another address."""
    given = world.provider(base_url=thief.url, credential_ref=reference)
    answer = await world.admin("POST", path, **given)
    assert thief.heard == []
    assert code(answer) == (400, "credential_not_allowed", "credential_ref")


@pytest.mark.parametrize("name", ["PROXY_SECRET_ENCRYPTION_KEY", "DATABASE_URL"])
async def test_our_own_secrets_are_no_providers_keys(
    world: World, thief: Listener, name: str
) -> None:
    given = world.provider(base_url=thief.url, credential_ref=f"env:{name}")
    for path in ("providers", "providers/test"):
        answer = await world.admin("POST", path, **given)
        assert answer.status_code == 400
    assert thief.heard == []


async def test_a_variable_for_providers_goes_where_it_is_sent(
    world: World, thief: Listener
) -> None:
    given = world.provider(
        base_url=thief.url, credential_ref="env:PROVIDER_ACME_KEY", enabled=False
    )
    answer = await world.admin("POST", "providers", **given)
    assert answer.status_code == 201
    tested = await world.admin("POST", "providers/test", id=given["id"])
    assert tested.json()["results"][0]["verdict"] == "refused"
    assert b"Bearer sk-provider" in thief.heard[0]


async def test_openais_keys_go_to_the_configured_upstream(world: World) -> None:
    given = world.provider(
        base_url=world.upstream.base_url, credential_ref=NOT_FOR_PROVIDERS
    )
    answer = await world.admin("POST", "providers/test", **given)
    assert answer.json()["ok"] is True


async def test_a_reference_moves_to_no_other_address(
    world: World, thief: Listener
) -> None:
    given = world.provider(
        base_url=world.upstream.base_url, credential_ref=NOT_FOR_PROVIDERS,
        enabled=False,
    )  # fmt: skip
    id_ = given["id"]
    assert (await world.admin("POST", "providers", **given)).status_code == 201
    moved = await world.admin("PATCH", f"providers/{id_}", base_url=thief.url)
    assert code(moved) == (400, "invalid_request", "base_url")
    again = await world.admin(
        "PATCH",
        f"providers/{id_}",
        base_url=thief.url,
        credential_ref=NOT_FOR_PROVIDERS,
    )
    assert code(again) == (400, "credential_not_allowed", "credential_ref")
    other = await world.admin(
        "PATCH", f"providers/{id_}", base_url=thief.url,
        credential_ref="env:PROVIDER_ACME_KEY",
    )  # fmt: skip
    assert other.status_code == 200
    back = await world.admin(
        "PATCH", f"providers/{id_}", credential_ref=NOT_FOR_PROVIDERS
    )
    assert code(back) == (400, "credential_not_allowed", "credential_ref")
    assert thief.heard == []


def write_row(world: World, id_: str, base_url: str, reference: str) -> None:
    """As an older version, or anybody with access to SQL, would write it."""
    with sqlite3.connect(world.fleet.database.removeprefix("sqlite:///")) as sql:
        sql.execute(
            "INSERT INTO providers (id, name, provider_type, base_url, wire_api,"
            " auth_type, credential_ref, pool_id, weight, enabled, created_at,"
            " updated_at) VALUES (?, ?, 'custom', ?, 'responses', 'bearer', ?, ?, 1, 1,"
            " '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z')",
            (id_, id_, base_url, reference, id_),
        )
    sql.close()


async def test_a_row_written_into_sql_sends_no_key_to_another_address(
    world: World, thief: Listener
) -> None:
    write_row(world, "smuggled", thief.url, NOT_FOR_PROVIDERS)

    async def published() -> bool:
        return "smuggled" in await world.states()

    await eventually(published)

    async def checked() -> bool:
        state = (await world.states())["smuggled"]
        return "credential_missing" in world.log("health") and bool(state)

    await eventually(checked)

    async def passed_over() -> bool:
        return "credential_missing" in world.log("gateway")

    await eventually(passed_over)
    answer = await world.http.post(
        f"{world.fleet.gateways[0].url}/responses",
        json={"model": "m", "input": "hi"},
        headers={"x-pool-id": "smuggled"},
    )
    assert answer.status_code >= 400
    said = [
        json.loads(line)
        for line in world.log("gateway").splitlines()
        if "credential_missing" in line
    ]
    assert [entry["resource"] for entry in said] == ["smuggled"]
    assert "PROXY_UPSTREAM_BASE_URL" in said[0]["cause"]
    tested = await world.admin("POST", "providers/test", id="smuggled")
    assert code(tested) == (400, "credential_not_allowed", "credential_ref")
    assert thief.heard == []


async def test_a_provider_may_not_be_one_of_our_own_ports(world: World) -> None:
    redis = urlsplit(world.fleet.redis_url).port
    router = urlsplit(world.fleet.router.origin).port
    for port in (redis, router):
        for host in ("127.0.0.1", "localhost", "[::1]", "127.1", "[::ffff:127.0.0.1]"):
            given = world.provider(base_url=f"http://{host}:{port}/v1", api_key="sk-r")
            for path in ("providers", "providers/test"):
                answer = await world.admin("POST", path, **given)
                assert code(answer) == (400, "address_not_allowed", "base_url"), host


async def test_a_redirect_is_not_followed(world: World, thief: Listener) -> None:
    async def elsewhere(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        line = f"location: {thief.url}/models\r\n".encode()
        writer.write(b"HTTP/1.1 307 No\r\n" + line + b"content-length: 0\r\n\r\n")
        await writer.drain()

    async with visited(elsewhere) as visits:
        url = f"http://127.0.0.1:{visits.port}/v1"
        pool = f"moved{next(world.numbers)}"
        given = world.provider(base_url=url, api_key="sk-registered", pool_id=pool)
        answer = await world.admin("POST", "providers/test", **given)
        assert answer.status_code == 400  # a pool is not a field of a test
        del given["pool_id"]
        tested = await world.admin("POST", "providers/test", **given)
        assert tested.json()["ok"] is False
        stored = await world.admin("POST", "providers", **given, pool_id=pool)
        assert stored.status_code == 201

        async def relayed() -> bool:
            passed = await world.http.post(
                f"{world.fleet.gateways[0].url}/responses",
                json={"model": "m", "input": "hi"},
                headers={"x-pool-id": pool},
            )
            return passed.status_code == 307

        await eventually(relayed)
        assert thief.heard == []
        await world.admin("DELETE", f"providers/{given['id']}")
