"""Access control for both planes: admission, and the limits of keys."""

import asyncio
from typing import cast

import pytest

from libs.common.errors import RedisAway
from libs.common.headers import Header
from libs.common.proxy_keys import Principal, Reached, new_secret, secret_hash
from libs.common.redis.key_table import KeyLimits
from libs.common.redis.shared_connection import Refused
from services.gateway.auth.access_control import AccessControl
from services.gateway.auth.authenticator import Authenticator
from services.gateway.errors import Problem
from tests.support.memory.clock import settled, timeless

SECRET = new_secret()
LIMITED = Principal(id="k", requests_per_minute=2)
COUNTED = Principal(id="k", tokens_per_minute=9)


class Table:
    def __init__(self, principal: Principal | None = None) -> None:
        hashed = secret_hash(SECRET.encode())
        self.principals = {} if principal is None else {hashed: principal}

    async def version(self) -> str | None:
        return str(len(self.principals))

    async def read(self) -> dict[str, Principal]:
        return self.principals


class Limits:
    """Counts requests; can be made unreachable."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.reached: Reached | None = None
        self.counted: list[str] = []
        self.spent: list[tuple[str, int]] = []

    async def count(self, principal: Principal) -> Reached | None:
        self.counted.append(principal.id)
        if self.error:
            raise self.error
        return self.reached

    async def spend(self, key_id: str, tokens: int) -> None:
        self.spent.append((key_id, tokens))
        if self.error:
            raise self.error


def access(
    error: Exception | None = None, table: Table | None = None
) -> tuple[AccessControl, Limits]:
    limits = Limits(error)
    authenticator = Authenticator(table or Table(), required=False)
    return AccessControl(authenticator, cast(KeyLimits, limits)), limits


@timeless
async def test_a_key_that_was_minted_a_moment_ago_comes_in() -> None:
    made, _ = access(table=Table(LIMITED))
    headers: list[Header] = [(b"authorization", b"Bearer " + SECRET.encode())]
    assert await made.enter(headers) == LIMITED
    assert made.admit(headers) == LIMITED
    assert made.admit([]) is None


@pytest.mark.parametrize("principal", [None, Principal(id="k")])
@timeless
async def test_without_limits_nothing_is_counted(principal: Principal | None) -> None:
    made, limits = access()
    await made.count(principal)
    made.spend(principal, 7)
    await settled()
    assert (limits.counted, limits.spent) == ([], [])


@timeless
async def test_a_request_counts_and_is_refused_at_the_limit() -> None:
    made, limits = access()
    await made.count(LIMITED)
    assert limits.counted == ["k"]
    limits.reached = Reached("requests", 1200)
    with pytest.raises(Problem) as refused:
        await made.count(LIMITED)
    assert refused.value.status == 429
    assert refused.value.headers == ((b"retry-after", b"2"),)


@pytest.mark.parametrize("error", [RedisAway(), Refused("OOM")])
@timeless
async def test_without_redis_limits_are_not_enforced(error: Exception) -> None:
    made, _ = access(error)
    await made.count(LIMITED)
    made.spend(COUNTED, 7)
    await settled()


@pytest.mark.parametrize(
    ("principal", "tokens", "spent"),
    [
        (COUNTED, 7, [("k", 7)]),
        (COUNTED, None, []),
        (COUNTED, 0, []),
        (LIMITED, 7, []),
    ],
)
@timeless
async def test_tokens_are_counted_where_they_are_limited(
    principal: Principal, tokens: int | None, spent: list[tuple[str, int]]
) -> None:
    made, limits = access()
    made.spend(principal, tokens)
    await settled()
    assert limits.spent == spent


@timeless
async def test_counting_tokens_may_be_broken_off() -> None:
    made, _ = access()
    made.spend(COUNTED, 7)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await settled()
