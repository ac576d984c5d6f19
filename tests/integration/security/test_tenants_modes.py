"""Tenant isolation in its other modes, and while Redis or the router is unreachable."""

import json
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from libs.common.proxy_keys import Principal, secret_hash
from libs.common.redis.client import ClientCaller
from libs.common.redis.key_table import KeyTable
from libs.common.redis.shared_connection import connect as connect_redis
from libs.common.routing.functions import RoutingFunctions
from libs.common.routing.types import Owner, digest
from services.router.function_library import LIBRARY
from tests.support.clients.attack import new_id
from tests.support.databases.valkey import running_valkey
from tests.support.processes.stack import STREAM, Stack, gateway_stack

pytestmark = pytest.mark.asyncio
SECRETS = {name: f"rpx_{name * 43}" for name in "AB"}


@dataclass
class Clients:
    """Clients with key A, with key B, and without a key."""

    stack: Stack
    http: httpx.AsyncClient

    async def call(
        self, who: str, method: str, path: str, **more: Any
    ) -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {SECRETS.get(who, 'sk-any')}"}
        answer = await self.http.request(
            method, f"{self.stack.url}{path}", headers=headers, **more
        )
        return answer.status_code, answer.json()

    async def ask(self, who: str, **fields: Any) -> tuple[int, Any]:
        body = {"model": "gpt-5.5", "input": "hi", **fields}
        return await self.call(who, "POST", "/responses", json=body)

    async def response(self, who: str) -> str:
        status, answer = await self.ask(who)
        assert status == 200, answer
        return str(answer["id"])

    async def frame(self, who: str, **fields: Any) -> dict[str, Any]:
        """The event that ends a response on a new socket."""
        headers = {"authorization": f"Bearer {SECRETS.get(who, 'sk-any')}"}
        url = f"{self.stack.url.replace('http', 'ws', 1)}/responses"
        async with connect(url, additional_headers=headers, proxy=None) as socket:
            frame = {"type": "response.create", "model": "gpt-5.5", "input": "hi"}
            await socket.send(json.dumps(frame | fields))
            while True:
                event: dict[str, Any] = json.loads(await socket.recv())
                if event["type"] in ("response.completed", "error"):
                    return event


@asynccontextmanager
async def clients(url: str, folder: Path, **settings: str) -> AsyncIterator[Clients]:
    redis = connect_redis(url)
    caller = ClientCaller(redis)
    await RoutingFunctions(caller, STREAM, library=LIBRARY).load_library()
    known = {
        secret_hash(secret.encode()): Principal(id=f"key_{name}")
        for name, secret in SECRETS.items()
    }
    assert await KeyTable(caller).change(None, known)
    await redis.aclose()
    async with (
        gateway_stack(url, folder, **settings) as stack,
        httpx.AsyncClient(timeout=30) as http,
    ):
        # One account, so that the upstream would serve what the proxy lets through.
        stack.environ["OPENAI_RESOURCE_ACCOUNT_IDS"] = "acct-a,acct-a"
        stack.environ["OPENAI_API_KEYS"] = "sk-sim-a1,sk-sim-a2"
        await stack.publish("two")
        yield Clients(stack, http)


PREVIOUS = "previous_response_not_found"


async def test_foreign_ids_may_be_allowed_but_not_those_of_others(
    valkey: str, tmp_path: Path
) -> None:
    settings = {"PROXY_REQUIRE_KEYS": "true", "PROXY_FOREIGN_IDS": "allow"}
    async with clients(valkey, tmp_path, **settings) as c:
        own = await c.response("A")
        status, said = await c.ask("B", previous_response_id=own)
        assert (status, said["error"]["code"]) == (400, PREVIOUS)
        assert (await c.call("B", "GET", f"/responses/{own}"))[0] == 404
        assert (await c.call("B", "GET", "/files"))[0] == 200
        # An id that nobody owns: the upstream answers that it does not exist.
        before = len(c.stack.journal())
        status, said = await c.ask("B", previous_response_id=new_id("resp"))
        assert (status, said["error"]["code"]) == (400, PREVIOUS)
        assert len(c.stack.journal()) == before + 1
        assert (await c.call("B", "GET", "/batches/batch_1"))[0] == 404
        assert len(c.stack.journal()) == before + 2


async def test_without_required_keys_a_key_still_keeps_its_own(
    valkey: str, tmp_path: Path
) -> None:
    async with clients(valkey, tmp_path) as c:
        own, anybodys = await c.response("A"), await c.response("")
        for who in ("B", ""):
            status, said = await c.ask(who, previous_response_id=own)
            assert (status, said["error"]["code"]) == (400, PREVIOUS)
            path = f"/responses/%72{own[1:]}"
            assert (await c.call(who, "GET", path))[0] == 404
            event = await c.frame(who, previous_response_id=own)
            assert event["error"]["code"] == PREVIOUS
        for who in ("A", "B", ""):
            assert (await c.ask(who, previous_response_id=anybodys))[0] == 200
        assert (await c.ask("A", previous_response_id=own))[0] == 200


@pytest.mark.parametrize("redis_away", [False, True])
async def test_an_id_that_cannot_be_looked_up_is_not_said_to_be_unknown(
    tmp_path: Path, *, redis_away: bool
) -> None:
    """This stack has no router, and Redis is stopped too."""
    with ExitStack() as valkey:
        url = valkey.enter_context(running_valkey(tmp_path))
        async with clients(url, tmp_path, PROXY_REQUIRE_KEYS="true") as c:
            own = await c.response("A")
            if redis_away:
                valkey.close()
            status, said = await c.ask("B", previous_response_id=own)
            assert (status, said["error"]["code"]) == (400, PREVIOUS)
            event = await c.frame("B", previous_response_id=own)
            assert event["error"]["code"] == PREVIOUS
            assert (await c.ask("A", previous_response_id=own))[0] == 200
            event = await c.frame("A", previous_response_id=own)
            assert event["type"] == "response.completed"
            unknown = new_id("resp")
            status, said = await c.ask("B", previous_response_id=unknown)
            assert (status, said["error"]["code"]) == (503, "not_ready")
            event = await c.frame("B", previous_response_id=unknown)
            assert (event["status"], event["error"]["code"]) == (503, "not_ready")
            assert (await c.call("B", "GET", "/files"))[0] == 403


async def test_what_was_kept_before_there_were_tenants_is_asked_of_sql(
    valkey: str, tmp_path: Path
) -> None:
    """An older version wrote no tenant into Redis: SQL is authoritative, and its answer
    replaces the old entry."""
    async with clients(valkey, tmp_path, PROXY_REQUIRE_KEYS="true") as c:
        old = new_id("resp")
        await c.stack.redis.set("{rpx}:bound:" + digest(old), "openai-1|acct-a")
        status, said = await c.ask("A", previous_response_id=old)
        assert (status, said["error"]["code"]) == (503, "not_ready")
        owner = Owner("openai-1", "acct-a", "key:key_A")
        assert await c.stack.routing.adopt(ids={digest(old): owner}) == 1
        before = len(c.stack.journal())
        await c.ask("A", previous_response_id=old)
        assert len(c.stack.journal()) == before + 1
        await c.ask("B", previous_response_id=old)
        assert len(c.stack.journal()) == before + 1


async def test_a_large_answer_tells_its_id(valkey: str, tmp_path: Path) -> None:
    async with clients(valkey, tmp_path, PROXY_REQUIRE_KEYS="true") as c:
        status, answer = await c.ask("A", metadata={"simulate_words": "1000000"})
        assert status == 200
        assert len(json.dumps(answer)) > 8_388_608
        path = f"/responses/{answer['id']}"
        assert (await c.call("A", "GET", f"{path}/input_items"))[0] == 200
        assert (await c.call("B", "GET", f"{path}/input_items"))[0] == 404
