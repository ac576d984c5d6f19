"""What the holder of a proxy key is told of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from libs.common.budgets import Budget
from libs.common.contracts.events import END_OF_TIME_MS
from libs.common.headers import Header
from libs.common.proxy_keys import Policy, Principal
from libs.common.routing.budgets import KNOWN, Spend
from services.gateway.auth.key_usage import KeyUsage
from services.gateway.auth.self_service import asks_about_itself, described
from services.gateway.server.request import Request
from tests.support.memory.clock import timeless
from tests.support.memory.plane import SECRET, Client, World
from tests.support.memory.requests import KEY
from tests.support.memory.twin import Twin, resource

LINE = b"GET /v1/proxy/me"
HOLDER = Principal(
    id="key_1",
    name="ci",
    prefix="rpx_abcdef",
    team_id="search",
    pools=("a", "b"),
    expires_at_ms=4_102_444_800_000,
    requests_per_minute=60,
    tokens_per_minute=100,
    policies=(Policy(models=("gpt-*",)),),
    budgets=(Budget("key:key_1", nanos=1_500_000_000, window="total"),),
)
SPEND = Spend("key:key_1", 0, END_OF_TIME_MS, 7, 250_000_000, 0, KNOWN)


async def answered(
    root: Path, *headers: Header, line: bytes = LINE, **more: Any
) -> tuple[Client, World]:
    world = World(root, Twin(resource("a")))
    world.table.put(HOLDER)
    world.twin.counted, world.twin.spends = (3, 120), {SPEND.subject: SPEND}
    await world.refreshed()
    world.twin.away = more.get("away", False)
    client = world.client()
    await client.asks(b"", *headers, line=line)
    return client, world


@timeless
async def test_a_key_sees_what_it_may_do_and_used(tmp_path: Path) -> None:
    client, world = await answered(tmp_path, KEY)
    assert (client.status, client.head[b"cache-control"]) == (200, b"no-store")
    told = json.loads(client.body)
    assert told == {
        "object": "proxy_key",
        "id": "key_1",
        "name": "ci",
        "prefix": "rpx_abcdef",
        "team_id": "search",
        "pool_id": None,
        "pools": ["a", "b"],
        "expires_at": "2100-01-01T00:00:00.000Z",
        "queue_weight": 1.0,
        "policies": [{"models": ["gpt-*"]}],
        "limits": {
            "requests_per_minute": {"limit": 60, "used": 3, "remaining": 57},
            "tokens_per_minute": {"limit": 100, "used": 120, "remaining": 0},
        },
        "budgets": [
            {
                "subject": "key",
                "window": "total",
                "time_zone": "UTC",
                "starts_at": None,
                "ends_at": None,
                "budget_usd": 1.5,
                "spent_usd": 0.25,
                "budget_tokens": None,
                "spent_tokens": 7,
                "reserved_tokens": 0,
                "soft_percent": 80,
            }
        ],
    }
    assert SECRET.encode() not in client.wire.sent
    assert (world.requests, world.upstreams) == ([], [])


@timeless
async def test_what_was_used_is_unknown_while_redis_is_away(tmp_path: Path) -> None:
    client, _ = await answered(tmp_path, KEY, away=True)
    told = json.loads(client.body)
    limit = {"limit": 60, "used": None, "remaining": None}
    assert told["limits"]["requests_per_minute"] == limit
    assert told["budgets"] is None


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        pytest.param((), 401, "invalid_proxy_key", id="none, though none is required"),
        pytest.param(
            ((b"authorization", b"Bearer sk-1"),), 401, "invalid_proxy_key", id="other"
        ),
    ],
)
@timeless
async def test_without_a_proxy_key_nothing_is_told(
    tmp_path: Path, headers: tuple[Header, ...], status: int, code: str
) -> None:
    client, _ = await answered(tmp_path, *headers)
    assert (client.status, client.code) == (status, code)
    assert client.head[b"www-authenticate"] == b"Bearer"


@timeless
async def test_a_policy_of_addresses_holds_here_too(tmp_path: Path) -> None:
    world = World(tmp_path, Twin(resource("a")))
    only = Policy(ip_allow=("192.0.2.0/24",), endpoints=("responses",))
    world.table.put(Principal(id="k", policies=(only,)))
    await world.refreshed()
    client = world.client()
    await client.asks(b"", KEY, line=LINE)
    assert (client.status, client.code) == (403, "address_not_allowed")


@timeless
async def test_no_endpoint_rule_hides_it(tmp_path: Path) -> None:
    world = World(tmp_path, Twin(resource("a")))
    only = Policy(endpoints=("responses",))
    world.table.put(Principal(id="k", policies=(only,)))
    await world.refreshed()
    client = world.client()
    await client.asks(b"", KEY, line=LINE)
    assert client.status == 200


@timeless
async def test_the_connection_serves_on(tmp_path: Path) -> None:
    client, _ = await answered(tmp_path, KEY)
    client.wire.take()
    await client.asks(b"", KEY, line=b"HEAD /v1/proxy/me")
    assert (client.status, client.body) == (200, b"")


@pytest.mark.parametrize(
    ("method", "target", "asks"),
    [
        ("GET", b"/v1/proxy/me", True),
        ("HEAD", b"/v1/proxy/me?x", True),
        ("DELETE", b"/v1/proxy/me", False),
        ("GET", b"/v1/proxy/me/", False),
    ],
)
def test_which_requests_ask(method: str, target: bytes, asks: bool) -> None:
    assert asks_about_itself(Request(method, target, [])) is asks


def test_a_key_without_limits() -> None:
    told = described(Principal(id="k"), KeyUsage())
    assert told["limits"] == {"requests_per_minute": None, "tokens_per_minute": None}
    assert (told["expires_at"], told["budgets"]) == (None, ())
