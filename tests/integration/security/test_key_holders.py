"""Proxy keys through all processes: minted at the router, used at two gateways that
require keys, recorded in SQL, and their secrets stored nowhere."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI, AuthenticationError, PermissionDeniedError
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from libs.common.proxy_keys import secret_hash
from libs.common.redis.client import ClientCaller
from libs.common.redis.key_table import KeyTable
from libs.common.redis.shared_connection import connect as connect_redis
from tests.support.databases.redis_dump import dump
from tests.support.databases.sql import fetch
from tests.support.databases.valkey import empty
from tests.support.processes.fleet import running_fleet
from tests.support.processes.waiting import eventually
from tests.support.processes.written import written
from tests.support.upstreams.simulator import Simulator
from tests.support.worlds.key_holders import (
    ASK,
    PLAN,
    SOON_S,
    UPSTREAM_KEYS,
    Holders,
    error,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def holders(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Holders]:
    empty(valkey_server)
    folder = tmp_path_factory.mktemp("fleet")
    redis = connect_redis(valkey_server)
    async with (
        Simulator(UPSTREAM_KEYS) as simulator,
        running_fleet(PLAN, simulator, valkey_server, folder) as fleet,
    ):
        made = Holders(fleet, redis, folder)
        yield made
        await made.http.aclose()
    await redis.aclose()


class TestAdmission:
    @pytest.mark.parametrize("key", ["sk-123", "rpx_" + "A" * 43])
    async def test_other_keys_are_refused_as_clients_understand(
        self, holders: Holders, key: str
    ) -> None:
        url = holders.fleet.gateways[0].url
        async with AsyncOpenAI(base_url=url, api_key=key) as client:
            with pytest.raises(AuthenticationError) as refused:
                await client.responses.create(model="gpt-5.5", input="hi")
        assert refused.value.code == "invalid_proxy_key"
        assert refused.value.response.headers["www-authenticate"] == "Bearer"

    async def test_every_call_needs_a_key(self, holders: Holders) -> None:
        url = holders.fleet.gateways[0].url
        for method, path in (("GET", "models"), ("DELETE", "responses/resp_1")):
            answer = await holders.http.request(method, f"{url}/{path}")
            assert error(answer) == (401, "invalid_proxy_key")

    async def test_a_large_body_does_not_hide_the_refusal(
        self, holders: Holders
    ) -> None:
        url = f"{holders.fleet.gateways[0].url}/responses"
        answer = await holders.http.post(url, content=b"x" * 5_000_000)
        assert error(answer) == (401, "invalid_proxy_key")

    async def test_strangers_leave_no_rows(self, holders: Holders) -> None:
        url = f"{holders.fleet.gateways[0].url}/responses"
        assert error(await holders.http.post(url, json=ASK))[0] == 401
        key = await holders.mint()
        await holders.ask(key)
        await holders.rows(key, 1)
        query = "SELECT count(*) FROM requests WHERE proxy_key_id IS NULL"
        assert fetch(holders.fleet.database, query) == [(0,)]

    async def test_a_minted_key_works_at_once_at_every_gateway(
        self, holders: Holders
    ) -> None:
        for number in range(10):
            key = await holders.mint(name=f"fresh {number}")
            answers = [await holders.ask(key, gateway) for gateway in range(2)]
            assert [a.status_code for a in answers] == [200, 200]

    async def test_its_use_is_shown(self, holders: Holders) -> None:
        key = await holders.mint(name="shown")
        answer = await holders.ask(key)
        assert await holders.rows(key, 1) == [(200, None, None)]
        url = f"{holders.fleet.admin}/keys"
        shown = (await holders.http.get(f"{url}/{key['id']}")).json()
        request = await holders.http.get(
            f"{holders.fleet.admin}/requests/{answer.headers['x-proxy-request-id']}"
        )
        assert shown["last_used_at"] == request.json()["created_at"]
        assert request.json()["proxy_key_id"] == key["id"]
        listed = (await holders.http.get(url, params={"limit": 1})).json()
        assert (listed["data"], bool(listed["next_cursor"])) == ([shown], True)
        assert "secret" not in shown

    async def test_a_revoked_key_is_refused_soon_everywhere(
        self, holders: Holders
    ) -> None:
        key = await holders.mint()
        assert (await holders.ask(key)).status_code == 200
        await holders.revoke(key)
        for told in await holders.until_refused(key):
            assert "revoked" in told["message"]

    async def test_disabling_is_undone(self, holders: Holders) -> None:
        key = await holders.mint()
        await holders.change(key, enabled=False)
        for told in await holders.until_refused(key):
            assert "disabled" in told["message"]
        await holders.change(key, enabled=True)

        async def again() -> bool:
            return (await holders.ask(key)).status_code == 200

        await eventually(again, SOON_S)

    async def test_an_expired_key_is_refused(self, holders: Holders) -> None:
        key = await holders.mint(expires_at="2020-01-01T00:00:00Z")
        for gateway in range(2):
            answer = await holders.ask(key, gateway)
            assert error(answer) == (401, "invalid_proxy_key")
            assert "expired" in answer.json()["error"]["message"]

    async def test_keys_outlive_an_emptied_redis(self, holders: Holders) -> None:
        key = await holders.mint()
        await holders.redis.flushall()
        await holders.redis.execute_command("FUNCTION", "FLUSH")  # type: ignore[no-untyped-call]
        table = KeyTable(ClientCaller(holders.redis))

        async def filled() -> bool:
            found = await table.read()
            return secret_hash(key["secret"].encode()) in found

        await eventually(filled, SOON_S)

        async def serves() -> bool:
            answers = [await holders.ask(key, gateway) for gateway in range(2)]
            assert 401 not in [a.status_code for a in answers]
            return all(a.status_code == 200 for a in answers)

        await eventually(serves, SOON_S)


class TestPools:
    async def test_a_pinned_key_goes_to_its_pool_whatever_is_asked(
        self, holders: Holders
    ) -> None:
        key = await holders.mint(pool_id="right")
        for pool in (None, "left"):
            for gateway in range(2):
                answer = await holders.ask(key, gateway, pool)
                assert answer.headers["x-proxy-resource-id"] == "openai-2"
        assert await holders.rows(key, 4) == [(200, None, "right")] * 4

    async def test_a_limited_key_uses_its_pools_only(self, holders: Holders) -> None:
        key = await holders.mint(pools=["right"])
        for pool in (None, "right"):
            answer = await holders.ask(key, pool=pool)
            assert answer.headers["x-proxy-resource-id"] == "openai-2"
        url = holders.fleet.gateways[0].url
        async with AsyncOpenAI(base_url=url, api_key=key["secret"]) as client:
            with pytest.raises(PermissionDeniedError) as refused:
                await client.responses.create(
                    model="gpt-5.5", input="hi", metadata={"pool_id": "left"}
                )
        assert refused.value.code == "pool_not_allowed"
        assert "Its pools: right." in refused.value.message
        assert await holders.rows(key, 3) == [
            (200, None, "right"),
            (200, None, "right"),
            (403, "pool_not_allowed", "left"),
        ]

    async def test_of_several_pools_the_first_is_the_default(
        self, holders: Holders
    ) -> None:
        key = await holders.mint(pools=["left", "right"])
        homes = [
            (await holders.ask(key, pool=pool)).headers["x-proxy-resource-id"]
            for pool in (None, None, "right")
        ]
        assert homes == ["openai-1", "openai-1", "openai-2"]


class TestLimits:
    async def test_requests_are_counted_over_all_gateways(
        self, holders: Holders
    ) -> None:
        key = await holders.mint(requests_per_minute=5)
        answers = await asyncio.gather(
            *(holders.ask(key, number % 2) for number in range(14))
        )
        assert Counter(a.status_code for a in answers) == {200: 5, 429: 9}
        for answer in answers:
            if answer.status_code == 429:
                assert error(answer)[1] == "rate_limit_exceeded"
                assert 1 <= int(answer.headers["retry-after"]) <= 65
                assert "5 requests per minute" in answer.text
        found = Counter(row[1] for row in await holders.rows(key, 14))
        assert found == {None: 5, "rate_limit_exceeded": 9}

    async def test_tokens_stop_what_comes_after(self, holders: Holders) -> None:
        key = await holders.mint(tokens_per_minute=1)
        assert (await holders.ask(key)).status_code == 200

        async def limited() -> bool:
            answer = await holders.ask(key, 1)
            return answer.status_code == 429 and "tokens per minute" in answer.text

        # Its tokens are counted when the answer has ended.
        await eventually(limited)

    async def test_a_lifted_limit_lets_go(self, holders: Holders) -> None:
        key = await holders.mint(requests_per_minute=1)
        answers = [await holders.ask(key) for _ in range(2)]
        assert [a.status_code for a in answers] == [200, 429]
        await holders.change(key, requests_per_minute=None)

        async def free() -> bool:
            return (await holders.ask(key)).status_code == 200

        await eventually(free, SOON_S)


async def response(opened: ClientConnection) -> dict[str, Any]:
    """Send a request on a socket; returns the frame that ends the response."""
    await opened.send(json.dumps({"type": "response.create", **ASK}))
    while True:
        frame: dict[str, Any] = json.loads(await opened.recv())
        if frame["type"] in ("response.completed", "error"):
            return frame


class TestSockets:
    async def test_an_upgrade_needs_a_key(self, holders: Holders) -> None:
        with pytest.raises(InvalidStatus) as refused:
            async with holders.socket({"secret": "sk-123"}):
                pass
        answer = refused.value.response
        assert answer.status_code == 401
        assert json.loads(answer.body or b"")["error"]["code"] == "invalid_proxy_key"

    async def test_each_response_counts_and_is_the_keys(self, holders: Holders) -> None:
        key = await holders.mint(requests_per_minute=2, pool_id="right")
        async with holders.socket(key) as opened:
            frames = [await response(opened) for _ in range(3)]
        kinds = ["response.completed", "response.completed", "error"]
        assert [frame["type"] for frame in frames] == kinds
        told = frames[-1]
        assert (told["status"], told["error"]["code"]) == (429, "rate_limit_exceeded")
        assert await holders.rows(key, 3) == [
            (200, None, "right"),
            (200, None, "right"),
            (429, "rate_limit_exceeded", "right"),
        ]

    async def test_a_revoked_key_ends_on_an_open_socket_too(
        self, holders: Holders
    ) -> None:
        key = await holders.mint()
        async with holders.socket(key) as opened:
            assert (await response(opened))["type"] == "response.completed"
            await holders.revoke(key)
            await holders.until_refused(key)
            told = await response(opened)
        assert (told["status"], told["error"]["code"]) == (401, "invalid_proxy_key")


class TestSecrecy:
    async def test_no_secret_is_anywhere(self, holders: Holders) -> None:
        key = await holders.mint(name="grep me", requests_per_minute=1)
        for gateway in (0, 1, 0):
            await holders.ask(key, gateway)
        await holders.rows(key, 3)
        gone = await holders.mint()
        await holders.revoke(gone)
        await holders.until_refused(gone)
        places = {
            "logs": written(holders.folder, "*.log"),
            "sql": written(holders.folder, "proxy.sqlite3*"),
            "redis": await dump(holders.redis),
            "refusals": "".join(holders.said).encode(),
            "upstream": json.dumps(
                holders.fleet.simulator.state.journal.shown(None, bodies=True)
            ).encode(),
        }
        for path in ("keys?limit=500", "requests?limit=500", "state"):
            shown = await holders.http.get(f"{holders.fleet.admin}/{path}")
            places[path] = shown.content
        for member in (*holders.fleet.gateways, holders.fleet.router):
            metrics = await holders.http.get(f"{member.origin}/metrics")
            places[f"metrics of {member.origin}"] = metrics.content
        hashed = secret_hash(key["secret"].encode()).encode()
        assert hashed in places["redis"]  # which shows that the dump is not empty
        assert hashed in places["sql"]
        for secret in holders.secrets:
            # More of it than the prefix, which may be shown.
            found = [
                name for name, held in places.items() if secret[12:].encode() in held
            ]
            assert found == []
