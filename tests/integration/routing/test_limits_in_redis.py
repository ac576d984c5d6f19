"""Limits of accounts as Redis keeps them: for how long, of how many models, and what
operators are shown."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from libs.common.contracts.catalogue import Catalogue
from libs.common.redis.client import ClientCaller
from libs.common.redis.keys import DEFAULT
from libs.common.redis.shared_connection import connect
from libs.common.routing.functions import RoutingFunctions, Terms
from libs.common.routing.types import model_digest
from libs.common.upstream_answers.rate_limits import LONGEST_MS, Told
from services.router.function_library import LIBRARY
from tests.support.databases import function_keys
from tests.support.databases.valkey import empty
from tests.support.memory.twin import resource
from tests.support.values.asks import made_ask, made_release

MOST = 3
SMALL = LIBRARY.replace("local MOST_LIMITED = 500", f"local MOST_LIMITED = {MOST}")
MODEL = "gpt-5.5"
EVERY = {"a1": "a", "a2": "a", "b1": "b"}

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def redis(valkey: str) -> AsyncIterator[Any]:
    empty(valkey)
    async with connect(valkey) as client:
        yield client


async def functions(redis: Any, **more: Any) -> RoutingFunctions:
    routing = RoutingFunctions(
        ClientCaller(redis), "telemetry:events", Terms(), SMALL, **more
    )
    await routing.load_library()
    found = tuple(resource(id_, account_id=account) for id_, account in EVERY.items())
    await routing.publish(Catalogue(version="v1", resources=found), "event")
    return routing


def left(tokens: int, reset_ms: int, age_ms: int = 0) -> str:
    told = Told(-1, -1, -1, 1_000, tokens, reset_ms)
    return told.encoded(age_ms)


async def told(
    routing: RoutingFunctions, limits: str, resource_id: str = "a1", model: str = MODEL
) -> None:
    await routing.release(
        made_release(resource_id, model=model, limits=limits, event=None)
    )


async def chosen(routing: RoutingFunctions, tokens: int, count: int = 1) -> list[str]:
    ask = {"model": model_digest(MODEL), "tokens": tokens}
    decisions = [
        await routing.acquire(made_ask(f"r{number}", draw=number, **ask))
        for number in range(count)
    ]
    return [decision.resource_id for decision in decisions]


async def passed_over(routing: RoutingFunctions) -> list[str]:
    ask = made_ask(model=model_digest(MODEL), tokens=100)
    rows = (await routing.explain(ask, None)).candidates
    return sorted(row["resource"] for row in rows if "refused" in row)


async def test_a_limit_ends_with_its_reset(redis: Any) -> None:
    routing, key = await functions(redis), function_keys.limits(model_digest(MODEL))
    await told(routing, left(0, 150))
    assert 0 < await redis.pttl(key) <= 150
    await told(routing, left(0, 10 * LONGEST_MS))
    assert LONGEST_MS - 1_000 < await redis.pttl(key) <= LONGEST_MS
    await told(routing, left(0, 100, age_ms=200), "b1")
    (a1, _, b1) = await routing.states()
    assert [limits.remaining_tokens for limits in a1.limits] == [0]
    assert b1.limits == ()
    await told(routing, left(1_000, 0))
    assert await redis.exists(key) == 0


async def test_a_limited_account_is_passed_over(redis: Any) -> None:
    routing = await functions(redis)
    await told(routing, left(50, 60_000))
    assert await chosen(routing, 100, 5) == ["b1"] * 5
    assert (await chosen(routing, 10))[0] in ("a1", "a2")
    # Nothing is refused, and another model is not affected.
    await told(routing, left(0, 30_000), "b1")
    assert await chosen(routing, 100, 3) == ["b1"] * 3


async def test_limits_that_do_not_matter(redis: Any) -> None:
    routing = await functions(redis)
    await told(routing, left(0, 60_000))
    ask = made_ask(model=model_digest(MODEL), tokens=None)
    assert (await routing.acquire(ask)).resource_id == "a1"


async def test_a_clock_that_jumps(redis: Any) -> None:
    now = 1_760_000_000_000
    routing = await functions(redis, clock=lambda: now)
    now += 10 * LONGEST_MS
    await told(routing, left(0, 60_000))
    assert await passed_over(routing) == ["a1", "a2"]
    now -= 10 * LONGEST_MS
    assert await passed_over(routing) == []
    await told(routing, left(0, 60_000))  # the newer counts
    assert await passed_over(routing) == ["a1", "a2"]


async def test_models_are_bounded(redis: Any) -> None:
    routing = await functions(redis)
    for number in range(3 * MOST):
        await told(routing, left(0, 60_000 + number * 1_000), model=f"m{number}")
    assert len(await redis.keys(function_keys.limits("*"))) == MOST
    assert await redis.zcard(f"{DEFAULT.tag}:limits") == MOST
    (a1, *_) = await routing.states()
    assert [limits.model for limits in a1.limits] == ["m6", "m7", "m8"]


async def test_what_operators_are_shown(redis: Any) -> None:
    routing = await functions(redis)
    limits = Told(500, 400, 60_000, 1_000, 900, 30_000).encoded(0)
    await told(routing, limits)
    for state in (await routing.states())[:2]:
        (of_model,) = state.limits
        assert (of_model.model, of_model.limit_requests) == (MODEL, 500)
        assert (of_model.remaining_requests, of_model.remaining_tokens) == (400, 900)
        assert of_model.requests_reset_at is not None
        assert of_model.tokens_reset_at is not None
        assert of_model.tokens_reset_at < of_model.requests_reset_at
    ask = made_ask(model=model_digest(MODEL), tokens=10)
    explained = await routing.explain(ask, None)
    rows = {row["resource"]: row for row in explained.candidates}
    assert rows["a1"]["remaining_tokens"] == rows["a2"]["remaining_tokens"] == 900
    assert rows["a1"]["remaining_requests"] == 400
    assert "remaining_tokens" not in rows["b1"]
    # Decisions say so when less than half is left.
    assert b"remaining" not in (await routing.acquire(ask)).event
    await told(routing, left(400, 30_000))
    decided = json.loads((await routing.acquire(ask)).event)["candidates"]
    rows = {row["resource"]: row for row in decided}
    assert rows["a1"]["remaining_tokens"] == rows["a2"]["remaining_tokens"] == 400
    assert rows["a1"]["limit_resets_at_ms"] > 1_700_000_000_000
    assert "remaining_tokens" not in rows["b1"]


async def test_a_passed_over_candidate_says_why(redis: Any) -> None:
    routing = await functions(redis)
    await told(routing, left(50, 60_000))
    ask = made_ask(model=model_digest(MODEL), tokens=100)
    for rows in (
        (await routing.explain(ask, None)).candidates,
        json.loads((await routing.acquire(ask)).event)["candidates"],
    ):
        why = {row["resource"]: row.get("refused") for row in rows}
        assert str(why["a1"]).startswith("its account is at its limit until 1")
        assert why["a2"] == why["a1"]
        assert why["b1"] is None


async def test_an_account_is_asked_again_after_a_second(redis: Any) -> None:
    now = 1_760_000_000_000
    routing = await functions(redis, clock=lambda: now)
    await told(routing, left(0, 60_000))
    for _ in range(3):
        assert await chosen(routing, 100, 3) == ["b1"] * 3
        now += 999
        assert await passed_over(routing) == ["a1", "a2"]
        now += 1
        assert await passed_over(routing) == []
        # Its keys are less loaded than b1. The next request is not theirs.
        first, *others = await chosen(routing, 100, 3)
        assert first in ("a1", "a2")
        assert others == ["b1"] * 2


async def test_one_request_is_under_way_when_the_limit_resets(redis: Any) -> None:
    now = 1_760_000_000_000
    routing = await functions(redis, clock=lambda: now)
    await told(routing, left(0, 1_500))
    assert await chosen(routing, 100, 3) == ["b1"] * 3  # more load from now on
    now += 1_400
    first, *others = await chosen(routing, 100, 3)
    assert (first in ("a1", "a2"), others) == (True, ["b1"] * 2)
    now += 999
    assert await chosen(routing, 100, 3) == ["b1"] * 3
    now += 1
    assert (await chosen(routing, 100, 3))[0] in ("a1", "a2")
