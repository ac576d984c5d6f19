"""Proxy keys at a gateway while Redis is away or empty."""

from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from libs.common.proxy_keys import Principal, secret_hash
from libs.common.redis.client import ClientCaller
from libs.common.redis.key_table import KeyTable
from libs.common.redis.shared_connection import connect as connect_redis
from libs.common.routing.functions import RoutingFunctions
from services.router.function_library import LIBRARY
from tests.support.databases.valkey import running_valkey
from tests.support.processes.stack import STREAM, gateway_stack
from tests.support.worlds.key_holders import ASK, error

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def publish_keys(url: str, holders: dict[str, Principal]) -> None:
    """Publish keys as the router does: secret -> holder."""
    redis = connect_redis(url)
    caller = ClientCaller(redis)
    await RoutingFunctions(caller, STREAM, library=LIBRARY).load_library()
    known = {secret_hash(secret.encode()): p for secret, p in holders.items()}
    assert await KeyTable(caller).change(None, known)
    await redis.aclose()


class TestWithoutRedis:
    async def test_the_last_table_stays_in_force_and_limits_do_not(
        self, tmp_path: Path
    ) -> None:
        secret = "rpx_" + "A" * 43
        principal = Principal(id="key_1", requests_per_minute=1)
        given = {"authorization": f"Bearer {secret}"}
        settings = {"PROXY_REQUIRE_KEYS": "true", "PROXY_DRAIN_SECONDS": "0.5"}
        with ExitStack() as valkey:
            url = valkey.enter_context(running_valkey(tmp_path))
            await publish_keys(url, {secret: principal})
            async with (
                gateway_stack(url, tmp_path, **settings) as stack,
                httpx.AsyncClient(timeout=20) as http,
            ):
                ask = f"{stack.url}/responses"
                answers = [await http.post(ask, json=ASK, headers=given) for _ in "12"]
                assert [a.status_code for a in answers] == [200, 429]
                valkey.close()
                for _ in range(3):
                    answer = await http.post(ask, json=ASK, headers=given)
                    assert answer.status_code == 200
                stranger = await http.post(ask, json=ASK)
                assert error(stranger) == (401, "invalid_proxy_key")
                ready = (await http.get(f"{stack.origin}/readyz")).json()
                assert (
                    "proxy keys: limits per minute are not enforced"
                    in (ready["degraded"])
                )
