"""Models and aliases of registered providers through all processes."""

import base64
import gzip
import json
from typing import Any

import pytest
import zstandard
from openai import AsyncOpenAI
from websockets.asyncio.client import ClientConnection, connect

from services.router.admin.schemas import registry as schemas
from tests.integration.router.registry.world import ASK, SOON_S, World, error
from tests.support.databases.sql import fetch
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


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
