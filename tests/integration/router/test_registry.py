"""The provider registry through all processes: registered at the router, used by a
gateway within seconds, stored in SQL, and its keys stored nowhere in plain text."""

import base64
import gzip
import json
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import zstandard
from cryptography.fernet import Fernet
from openai import AsyncOpenAI
from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection, connect

from libs.common.redis.shared_connection import connect as connect_redis
from libs.simulator.server import RunningSimulator
from services.router.admin.schemas import registry as schemas
from tests.support.databases.redis_dump import dump
from tests.support.databases.sql import fetch
from tests.support.databases.valkey import empty
from tests.support.processes.fleet import Fleet, Plan, running_fleet
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

pytestmark = pytest.mark.asyncio(loop_scope="module")
OURS = {"sk-sim-a": "acct-a"}
# Another upstream, whose keys are not in the environment.
THEIRS = {
    "sk-registered-c1": "acct-c",
    "sk-registered-c2": "acct-c",
    "sk-registered-d": "acct-d",
    "sk-in-the-environment": "acct-e",
}
FERNET = Fernet.generate_key().decode()
PLAN = Plan(
    OURS,
    gateways=1,
    services=("router", "health", "ingest"),
    settings={
        "PROXY_SECRET_ENCRYPTION_KEY": FERNET,
        "PROXY_HEARTBEAT_SECONDS": "0.2",
        "PROXY_HEALTH_CHECK_TIMEOUT_SECONDS": "2",
        "PROVIDER_ACME_KEY": "sk-in-the-environment",
        "PROXY_LOG_LEVEL": "debug",
    },
)
SOON_S = 60.0  # a second; only a failure takes that long
ASK = {"model": "gpt-5.5", "input": "hi"}


class World:
    """The running product, and the upstream that is registered."""

    def __init__(
        self, fleet: Fleet, upstream: RunningSimulator, redis: Redis, folder: Path
    ) -> None:
        self.fleet = fleet
        self.upstream = upstream
        self.redis = redis
        self.folder = folder
        self.http = httpx.AsyncClient(timeout=20)
        self.said: list[str] = []  # answers of the admin API, and refusals
        self.numbers = count(1)

    @property
    def url(self) -> str:
        return self.fleet.gateways[0].url

    async def admin(
        self, method: str, path: str, status: int = 200, **body: Any
    ) -> dict[str, Any]:
        answer = await self.http.request(
            method, f"{self.fleet.admin}/{path}", json=body or None
        )
        self.said.append(answer.text)
        assert answer.status_code == status, answer.text
        return dict(answer.json())

    async def provider(self, **fields: Any) -> dict[str, Any]:
        """A provider that only this test uses."""
        given = {
            "id": f"acme{next(self.numbers)}",
            "provider_type": "custom",
            "base_url": self.upstream.base_url,
            "api_key": "sk-registered-c1",
            **fields,
        }
        return await self.admin(
            "POST", "providers", 201, **{k: v for k, v in given.items() if v}
        )

    async def alias(self, provider: dict[str, Any], **fields: Any) -> str:
        given = {
            "alias": f"fast{next(self.numbers)}",
            "provider_id": provider["id"],
            "upstream_id": "gpt-5.5-mini",
            **fields,
        }
        await self.admin("POST", "models", 201, **given)
        await self.adopted()
        return str(given["alias"])

    async def adopted(self) -> None:
        """The gateway has what the router publishes."""

        async def equal() -> bool:
            ready = await self.http.get(f"{self.fleet.gateways[0].origin}/readyz")
            version: Any = await self.redis.get("{rpx}:catalogue:version")
            return bool(version and ready.json()["catalogue"] == version.decode())

        await eventually(equal, SOON_S)

    async def ask(self, model: str = "gpt-5.5", **headers: str) -> httpx.Response:
        answer = await self.http.post(
            f"{self.url}/responses",
            json={**ASK, "model": model},
            headers={name.replace("_", "-"): v for name, v in headers.items()},
        )
        if answer.status_code != 200:
            self.said.append(answer.text)
        return answer

    async def row(self, answer: httpx.Response) -> dict[str, Any]:
        """A request's row, once it is stored."""
        url = f"{self.fleet.admin}/requests/{answer.headers['x-proxy-request-id']}"

        async def stored() -> dict[str, Any] | None:
            found = await self.http.get(url)
            return found.json() if found.status_code == 200 else None

        row = await eventually(stored, SOON_S)
        assert row is not None
        return row

    async def clear(self) -> None:
        """Delete every provider."""
        for model in (await self.admin("GET", "models"))["data"]:
            await self.admin("DELETE", f"models/{model['alias']}")
        for provider in (await self.admin("GET", "providers"))["data"]:
            await self.admin("DELETE", f"providers/{provider['id']}")

    def received(self) -> list[dict[str, Any]]:
        """Requests at the registered upstream, without health checks."""
        entries = self.upstream.state.journal.shown(None, bodies=True)["entries"]
        return [e for e in entries if not e["path"].endswith("/models")]

    async def resources(self) -> dict[str, dict[str, Any]]:
        state = await self.fleet.state()
        return {resource["id"]: resource for resource in state["resources"]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    empty(valkey_server)
    folder = tmp_path_factory.mktemp("fleet")
    redis = connect_redis(valkey_server)
    async with (
        Simulator(OURS) as ours,
        Simulator(THEIRS) as theirs,
        running_fleet(PLAN, ours, valkey_server, folder) as fleet,
    ):
        theirs.state.journal.keep_bodies = True
        made = World(fleet, theirs, redis, folder)
        yield made
        await made.http.aclose()
    await redis.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def world(standing: World) -> AsyncIterator[World]:
    yield standing
    await standing.clear()
    await standing.adopted()


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


class TestProviders:
    async def test_a_provider_serves_within_seconds(self, world: World) -> None:
        provider = await world.provider(name="Acme", pool_id="acme", weight=2)
        schemas.ProviderRow.model_validate(provider)
        assert provider["api_key_configured"] is True
        assert provider["resources"] == [provider["id"]]

        async def serves() -> bool:
            answer = await world.ask(x_pool_id="acme")
            return bool(answer.headers.get("x-proxy-resource-id") == provider["id"])

        await eventually(serves, SOON_S)
        assert world.received()[-1]["key"] == "sk-registered-c1"
        shown = (await world.resources())[provider["id"]]
        assert (shown["name"], shown["pool_id"], shown["weight"]) == ("Acme", "acme", 2)

    async def test_without_a_pool_it_serves_what_names_none(self, world: World) -> None:
        provider = await world.provider()
        await world.adopted()
        homes = {(await world.ask()).headers["x-proxy-resource-id"] for _ in range(20)}
        assert homes == {"openai-1", provider["id"]}

    async def test_several_keys_are_several_resources(self, world: World) -> None:
        keys = "sk-registered-c1, sk-registered-c2,sk-registered-c1"
        provider = await world.provider(api_key=keys, pool_id="acme")
        ids = [f"{provider['id']}-1", f"{provider['id']}-2"]
        assert provider["resources"] == ids
        await world.adopted()
        answers = [await world.ask(x_pool_id="acme") for _ in range(20)]
        assert {a.headers["x-proxy-resource-id"] for a in answers} == set(ids)

    async def test_a_variable_of_the_gateways_will_do(self, world: World) -> None:
        provider = await world.provider(
            api_key=None, credential_ref="env:PROVIDER_ACME_KEY", pool_id="acme"
        )
        assert provider["api_key_configured"] is False
        assert provider["credential_ref"] == "env:PROVIDER_ACME_KEY"
        await world.adopted()
        assert (await world.ask(x_pool_id="acme")).status_code == 200
        assert world.received()[-1]["key"] == "sk-in-the-environment"

    async def test_health_checks_it_and_learns_its_account(self, world: World) -> None:
        provider = await world.provider()

        async def checked() -> Any:
            found = (await world.resources()).get(provider["id"])
            return found and found["account_id"] != found["id"] and found

        found = await eventually(checked, SOON_S)
        assert found["account_id"] == "acct-c/proj_acct-c"
        assert found["health"] == "healthy"

    async def test_changes_take_effect(self, world: World) -> None:
        provider = await world.provider(pool_id="acme")
        path = f"providers/{provider['id']}"
        changed = await world.admin("PATCH", path, api_key="sk-registered-d", weight=3)
        assert (changed["weight"], changed["pool_id"]) == (3, "acme")
        await world.adopted()
        assert (await world.ask(x_pool_id="acme")).status_code == 200
        assert world.received()[-1]["key"] == "sk-registered-d"
        assert await world.admin("GET", path) == changed

        await world.admin("PATCH", path, enabled=False)
        await world.adopted()
        assert error(await world.ask(x_pool_id="acme")) == (400, "unknown_pool")
        assert (await world.admin("GET", path))["resources"] == []

    async def test_deleting_ends_it(self, world: World) -> None:
        provider = await world.provider(pool_id="acme")
        await world.adopted()
        gone = await world.admin("DELETE", f"providers/{provider['id']}")
        assert gone["id"] == provider["id"]
        await world.adopted()
        assert provider["id"] not in await world.resources()
        told = await world.admin("GET", f"providers/{provider['id']}", 404)
        assert told["error"]["code"] == "provider_not_found"

    @pytest.mark.parametrize(
        ("fields", "param", "says"),
        [
            pytest.param({"api_key": None}, "api_key", "needs an api_key", id="no key"),
            pytest.param({"id": "a b"}, "id", "pattern", id="an id with a space"),
            pytest.param({"id": "test"}, "id", "is reserved", id="reserved"),
            pytest.param({"base_url": None}, "base_url", "custom", id="no address"),
            pytest.param({"base_url": "ftp://x"}, "base_url", "http", id="no http"),
            pytest.param({"wire_api": "chat"}, "wire_api", "responses", id="wire api"),
            pytest.param({"auth_type": "basic"}, "auth_type", "bearer", id="auth"),
            pytest.param({"weight": -1}, "weight", "0.001", id="weight"),
            pytest.param({"pool_id": "@acme"}, "pool_id", "pattern", id="pool"),
            pytest.param({"api_key": "sk with"}, "api_key", "a space", id="no key"),
            pytest.param({"nonsense": 1}, "nonsense", "not permitted", id="unknown"),
            pytest.param(
                {"api_key": None, "credential_ref": "env:PROXY_ADMIN_TOKEN"},
                "credential_ref",
                "the proxy's own",
                id="our own secrets",
            ),
            pytest.param(
                {"credential_ref": "env:PROVIDER_ACME_KEY"},
                None,
                "not both",
                id="two sources",
            ),
        ],
    )
    async def test_nonsense_is_refused(
        self, world: World, fields: dict[str, Any], param: str | None, says: str
    ) -> None:
        given = {
            "id": "acme",
            "provider_type": "custom",
            "base_url": world.upstream.base_url,
            "api_key": "sk-registered-c1",
            **fields,
        }
        told = await world.admin(
            "POST", "providers", 400, **{k: v for k, v in given.items() if v}
        )
        assert told["error"]["param"] == param
        assert says in told["error"]["message"]

    async def test_a_stored_key_goes_to_no_other_address(self, world: World) -> None:
        provider = await world.provider()
        path, elsewhere = f"providers/{provider['id']}", "http://127.0.0.1:9/v1"
        told = await world.admin("PATCH", path, 400, base_url=elsewhere)
        assert "send it again" in told["error"]["message"]
        await world.admin("PATCH", path, base_url=elsewhere, api_key="sk-other")

    async def test_ids_of_resources_are_nobody_elses(self, world: World) -> None:
        provider = await world.provider()
        taken = await world.admin(
            "POST", "providers", 409, id=provider["id"], api_key="sk-registered-d"
        )
        assert taken["error"]["code"] == "provider_exists"
        for id_, keys in (("openai-1", "sk-x"), ("openai", "sk-x,sk-y")):
            taken = await world.admin("POST", "providers", 409, id=id_, api_key=keys)
            assert taken["error"]["code"] == "resource_id_taken"
        await world.admin("POST", "providers", 201, id="openai", api_key="sk-x")


class TestTests:
    async def test_a_key_is_tried_before_it_is_stored(self, world: World) -> None:
        found = await world.admin(
            "POST",
            "providers/test",
            base_url=world.upstream.base_url,
            api_key="sk-registered-c1,sk-wrong",
        )
        schemas.ProviderTested.model_validate(found)
        good, bad = found["results"]
        assert (found["ok"], good["ok"], bad["verdict"]) == (False, True, "refused")
        assert "gpt-5.5" in good["models"]
        assert "401" in bad["detail"]

    async def test_a_stored_one_by_its_id(self, world: World) -> None:
        provider = await world.provider()
        found = await world.admin("POST", "providers/test", id=provider["id"])
        assert found["ok"]
        assert [r["key"] for r in found["results"]] == [provider["id"]]

    async def test_nobody_there(self, world: World) -> None:
        found = await world.admin(
            "POST", "providers/test", base_url="http://127.0.0.1:9", api_key="sk-x"
        )
        assert found["results"][0]["verdict"] == "fault"
        assert "cannot connect" in found["results"][0]["detail"]

    async def test_a_variable_that_is_not_set(self, world: World) -> None:
        found = await world.admin(
            "POST",
            "providers/test",
            base_url=world.upstream.base_url,
            credential_ref="env:PROVIDER_NOT_SET",
        )
        assert found["results"][0]["verdict"] == "unresolved"
        assert "NOT_SET" in found["results"][0]["detail"]

    async def test_a_model_is_listed_or_not(self, world: World) -> None:
        provider = await world.provider()
        alias = await world.alias(provider, upstream_id="gpt-5.5")
        found = await world.admin("POST", "models/test", alias=alias)
        schemas.ModelTested.model_validate(found)
        assert found["ok"]
        found = await world.admin(
            "POST", "models/test", provider_id=provider["id"], upstream_id="gpt-none"
        )
        assert not found["ok"]
        assert "does not list gpt-none" in found["detail"]


class TestModels:
    async def test_they_are_kept(self, world: World) -> None:
        provider = await world.provider()
        alias = await world.alias(provider, alias="team/fast")
        row = await world.admin("GET", f"models/{alias}")
        schemas.ModelRow.model_validate(row)
        changed = await world.admin("PATCH", f"models/{alias}", upstream_id="gpt-6")
        assert changed["upstream_id"] == "gpt-6"
        listed = await world.admin("GET", "models")
        assert listed["data"] == [changed]
        told = await world.admin("DELETE", f"providers/{provider['id']}", 409)
        assert told["error"]["code"] == "provider_in_use"
        assert await world.admin("DELETE", f"models/{alias}") == changed
        told = await world.admin("GET", f"models/{alias}", 404)
        assert told["error"]["code"] == "model_not_found"

    async def test_nonsense_is_refused(self, world: World) -> None:
        provider = await world.provider()
        asked = {"alias": "x", "provider_id": "nobody", "upstream_id": "y"}
        told = await world.admin("POST", "models", 400, **asked)
        assert told["error"]["code"] == "provider_not_found"
        asked["provider_id"] = provider["id"]
        await world.admin("POST", "models", 400, **{**asked, "alias": 'a"b'})
        await world.admin("POST", "models", 201, **asked)
        told = await world.admin("POST", "models", 409, **asked)
        assert told["error"]["code"] == "model_exists"


class TestAliases:
    async def test_only_the_value_is_replaced(self, world: World) -> None:
        alias = await world.alias(await world.provider())
        body = (
            b'{ "input" : "hi, \\u00fc \xc3\xbc",\n "metadata":{"model":"%b"},'
            b'\t"model" :  "%b" ,"store":false, "temperature":1.0}'
        ) % (alias.encode(), alias.encode())
        headers = {"content-type": "application/json"}
        answer = await world.http.post(
            f"{world.url}/responses", content=body, headers=headers
        )
        assert answer.status_code == 200, answer.text
        sent = world.received()[-1]
        whole = body.replace(b'"%b" ,' % alias.encode(), b'"gpt-5.5-mini" ,')
        assert base64.b64decode(sent["body"]) == whole
        assert dict(sent["headers"])["content-length"] == str(len(whole))
        assert answer.json()["model"] == "gpt-5.5-mini"

    async def test_the_row_says_both_names(self, world: World) -> None:
        provider = await world.provider(pool_id="acme")
        alias = await world.alias(provider)
        answer = await world.ask(alias)
        assert answer.headers["x-proxy-resource-id"] == provider["id"]
        row = await world.row(answer)
        assert (row["model"], row["upstream_model"]) == (alias, "gpt-5.5-mini")
        assert row["pool_id"] == f"@{provider['id']}"
        assert row["outcome"] == "completed"

    async def test_it_goes_to_its_provider_alone(self, world: World) -> None:
        keys = "sk-registered-c1,sk-registered-d"
        provider = await world.provider(api_key=keys)
        alias = await world.alias(provider)
        homes = [
            (await world.ask(alias)).headers["x-proxy-resource-id"] for _ in range(20)
        ]
        assert set(homes) == set(provider["resources"])

    @pytest.mark.parametrize("coding", ["gzip", "zstd"])
    async def test_a_compressed_body_leaves_plain(
        self, world: World, coding: str
    ) -> None:
        alias = await world.alias(await world.provider())
        plain = json.dumps({**ASK, "model": alias}).encode()
        pack = gzip.compress if coding == "gzip" else zstandard.compress
        answer = await world.http.post(
            f"{world.url}/responses",
            content=pack(plain),
            headers={"content-type": "application/json", "content-encoding": coding},
        )
        assert answer.status_code == 200, answer.text
        sent = world.received()[-1]
        assert base64.b64decode(sent["body"]) == plain.replace(
            alias.encode(), b"gpt-5.5-mini"
        )
        names = {name.lower() for name, _ in sent["headers"]}
        assert "content-encoding" not in names

    async def test_sessions_have_a_home_at_each_provider(self, world: World) -> None:
        keys = "sk-registered-c1,sk-registered-d"
        alias = await world.alias(await world.provider(api_key=keys, pool_id="acme"))
        session = "one-of-both"
        answers = [
            await world.ask(model, x_session_id=session, x_pool_id=pool)
            for _ in range(4)
            for model, pool in ((alias, "acme"), ("gpt-5.5", "openai-default"))
        ]
        homes = [a.headers["x-proxy-resource-id"] for a in answers]
        assert len(set(homes[::2])) == 1
        assert set(homes[1::2]) == {"openai-1"}
        reasons = {a.headers["x-proxy-reason"] for a in answers[2:]}
        assert reasons == {"session_affinity"}

    async def test_state_of_another_provider_is_out_of_reach(
        self, world: World
    ) -> None:
        alias = await world.alias(await world.provider(pool_id="acme"))
        first = await world.ask("gpt-5.5", x_pool_id="openai-default")
        answer = await world.http.post(
            f"{world.url}/responses",
            json={**ASK, "model": alias, "previous_response_id": first.json()["id"]},
        )
        assert error(answer) == (400, "previous_response_not_found")
        own = await world.ask(alias)
        answer = await world.http.post(
            f"{world.url}/responses",
            json={**ASK, "model": alias, "previous_response_id": own.json()["id"]},
        )
        assert answer.headers["x-proxy-reason"] == "response_affinity"

    async def test_pools_narrow_what_an_alias_leads_to(self, world: World) -> None:
        alias = await world.alias(await world.provider(pool_id="acme"))
        assert (await world.ask(alias, x_pool_id="acme")).status_code == 200
        told = await world.ask(alias, x_pool_id="openai-default")
        assert error(told) == (400, "model_not_in_pool")
        for fields, expected in (
            ({"pools": ["openai-default", "acme"]}, 200),
            ({"pool_id": "acme"}, 200),
            ({"pools": ["openai-default"]}, 403),
            ({"pool_id": "openai-default"}, 403),
        ):
            key = await world.http.post(f"{world.fleet.admin}/keys", json=fields)
            bearer = f"Bearer {key.json()['secret']}"
            answer = await world.ask(alias, authorization=bearer)
            assert answer.status_code == expected, fields
            if expected == 403:
                assert error(answer)[1] == "model_not_allowed"

    async def test_one_whose_provider_is_away_says_so(self, world: World) -> None:
        provider = await world.provider()
        alias = await world.alias(provider)
        await world.admin("PATCH", f"providers/{provider['id']}", enabled=False)
        await world.adopted()
        answer = await world.ask(alias)
        assert error(answer) == (404, "model_not_found")
        assert provider["id"] in answer.text
        row = await world.row(answer)
        assert (row["outcome"], row["error_code"]) == ("failed", "model_not_found")

    async def test_openai_python_streams_through_one(self, world: World) -> None:
        alias = await world.alias(await world.provider())
        async with AsyncOpenAI(base_url=world.url, api_key="any") as client:
            stream = await client.responses.create(model=alias, input="hi", stream=True)
            kinds = [event.type async for event in stream]
        assert kinds[-1] == "response.completed"

    async def test_explain_knows_them(self, world: World) -> None:
        provider = await world.provider(pool_id="acme")
        alias = await world.alias(provider)
        told = await world.admin("POST", "route/explain", body={**ASK, "model": alias})
        assert told["resource_id"] == provider["id"]
        assert told["provider_id"] == provider["id"]
        assert told["upstream_model"] == "gpt-5.5-mini"
        assert [c["resource"] for c in told["candidates"]] == [provider["id"]]
        told = await world.admin(
            "POST",
            "route/explain",
            400,
            headers={"x-pool-id": "openai-default"},
            body={**ASK, "model": alias},
        )
        assert told["error"]["code"] == "model_not_in_pool"


def socket(world: World, **headers: str) -> connect:
    url = world.url.replace("http", "ws", 1)
    return connect(
        f"{url}/responses", additional_headers=headers, proxy=None, compression=None
    )


async def answered(opened: ClientConnection, model: str) -> dict[str, Any]:
    """Send a request on a socket; returns the frame that ends the response."""
    await opened.send(json.dumps({"type": "response.create", **ASK, "model": model}))
    while True:
        frame: dict[str, Any] = json.loads(await opened.recv())
        if frame["type"] in ("response.completed", "error"):
            return frame


class TestSockets:
    async def test_the_first_frame_takes_the_socket_to_its_provider(
        self, world: World
    ) -> None:
        provider = await world.provider(pool_id="acme")
        alias = await world.alias(provider)
        async with socket(world, **{"x-session-id": "s"}) as opened:
            for _ in range(2):
                frame = await answered(opened, alias)
                assert frame["type"] == "response.completed", frame
                assert frame["response"]["model"] == "gpt-5.5-mini"
        query = (
            "SELECT model, upstream_model, resource_id, transport FROM requests "
            f"WHERE model = '{alias}'"
        )

        async def stored() -> list[tuple[Any, ...]]:
            rows = fetch(world.fleet.database, query)
            return rows if len(rows) == 2 else []

        rows = await eventually(stored, SOON_S)
        assert rows == [(alias, "gpt-5.5-mini", provider["id"], "ws")] * 2

    async def test_a_later_frame_cannot_go_elsewhere(self, world: World) -> None:
        one = await world.alias(await world.provider(pool_id="one"))
        other = await world.alias(await world.provider(pool_id="other"))
        async with socket(world) as opened:
            assert (await answered(opened, one))["type"] == "response.completed"
            frame = await answered(opened, other)
            assert (frame["status"], frame["error"]["code"]) == (400, "model_not_here")
            assert (await answered(opened, one))["type"] == "response.completed"

    async def test_an_alias_that_leads_nowhere(self, world: World) -> None:
        provider = await world.provider(
            base_url="http://127.0.0.1:9/v1", api_key="sk-registered-dead"
        )
        alias = await world.alias(provider)
        async with socket(world, **{"x-pool-id": "openai-default"}) as opened:
            frame = await answered(opened, alias)
            assert frame["error"]["code"] == "model_not_in_pool"
            # Nothing was sent on it yet, so any resource of its pool can serve.
            home = await world.alias(await world.provider(pool_id="openai-default"))
            assert (await answered(opened, home))["type"] == "response.completed"
        async with socket(world) as opened:
            frame = await answered(opened, alias)
            assert frame["type"] == "error"
            assert frame["status"] >= 500


class TestOutlasting:
    async def test_a_change_at_a_router_that_does_not_lead(self, world: World) -> None:
        second = world.fleet.router.twin(world.folder / "second-router.log")
        try:
            await second.ready()
            given = {"id": "elsewhere", "api_key": "sk-registered-c1"}
            answer = await world.http.post(
                f"{second.origin}/admin/providers", json=given
            )
            assert answer.status_code == 201, answer.text

            async def published() -> bool:
                return "elsewhere" in await world.resources()

            await eventually(published, SOON_S)
        finally:
            await second.end()

    async def test_an_emptied_redis(self, world: World) -> None:
        provider = await world.provider(pool_id="acme")
        alias = await world.alias(provider)
        await world.redis.flushall()
        await world.redis.execute_command("FUNCTION", "FLUSH")  # type: ignore[no-untyped-call]

        async def back() -> bool:
            return provider["id"] in await world.resources()

        await eventually(back, SOON_S)

        async def serves() -> bool:
            return (await world.ask(alias)).status_code == 200

        await eventually(serves, SOON_S)

    async def test_a_router_that_starts_anew(self, world: World) -> None:
        provider = await world.provider(pool_id="acme", account_id="acct-c")
        await world.adopted()
        version = await world.redis.get("{rpx}:catalogue:version")
        await world.fleet.router.end()
        world.fleet.router.start_anew()
        await world.fleet.router.ready()

        async def there() -> bool:
            state = await world.http.get(f"{world.fleet.router.origin}/readyz")
            return state.status_code == 200

        await eventually(there, SOON_S)
        assert provider["id"] in await world.resources()
        # Its keys were neither sealed again nor lost on the way.
        assert await world.redis.get("{rpx}:catalogue:version") == version

    async def test_each_change_is_an_event(self, world: World) -> None:
        provider = await world.provider()
        query = "SELECT data FROM events WHERE kind = 'registry'"

        async def stored() -> bool:
            rows = [str(row[0]) for row in fetch(world.fleet.database, query)]
            return any(provider["id"] in row for row in rows)

        await eventually(stored, SOON_S)


class TestSecrecy:
    async def test_no_key_is_anywhere(self, world: World) -> None:
        keys = "sk-registered-c1,sk-registered-d"
        provider = await world.provider(api_key=keys)
        alias = await world.alias(provider)
        answer = await world.ask(alias)
        await world.row(answer)
        path = f"providers/{provider['id']}"
        await world.admin("PATCH", path, 400, api_key="sk-registered c2")
        await world.admin("POST", "providers/test", api_key="sk-registered-wrong")
        await world.admin("GET", path)
        places = {
            "logs": b"".join(p.read_bytes() for p in world.folder.glob("*.log")),
            "sql": b"".join(
                p.read_bytes() for p in world.folder.glob("proxy.sqlite3*")
            ),
            "journal": b"".join(
                p.read_bytes() for p in world.folder.rglob("*") if p.is_file()
            ),
            "redis": await dump(world.redis),
            "answers": "".join(world.said).encode(),
        }
        for member in (*world.fleet.gateways, world.fleet.router):
            metrics = await world.http.get(f"{member.origin}/metrics")
            places[f"metrics of {member.origin}"] = metrics.content
        assert b"gAAAA" in places["redis"]  # which shows that the dump is not empty
        assert b"gAAAA" in places["sql"]
        assert b"gAAAA" not in places["answers"]
        secrets = [*THEIRS, FERNET, "sk-registered"]
        found = [
            (secret, name)
            for secret in secrets
            for name, held in places.items()
            if secret.encode() in held
        ]
        assert found == []
