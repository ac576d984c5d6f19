"""What clients can grow in Redis is bounded: at so many keys a new one ends an old one
(MOST_KEYS in functions/affinity.lua; fewer here)."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from libs.common.contracts.catalogue import Catalogue, Resource
from libs.common.redis.client import ClientCaller
from libs.common.redis.keys import DEFAULT
from libs.common.redis.shared_connection import connect
from libs.common.routing.functions import RoutingFunctions, Terms
from libs.common.routing.types import Ask, Owner, Release, digest
from libs.common.upstream_answers.verdicts import Verdict
from services.router.function_library import LIBRARY
from tests.support.databases import function_keys

MOST = 2_000
SLACK = 150  # written between two looks, and keys that are no affinity
SMALL = LIBRARY.replace("local MOST_KEYS = 1000000", f"local MOST_KEYS = {MOST}")
# As much of them is looked at as of a million with 64 pages, or rather more.
SMALL = SMALL.replace("SAMPLE = 64 * PAGE", "SAMPLE = 8 * PAGE")
HOME = Owner("openai-1", "account-1")

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def redis(valkey: str) -> AsyncIterator[Any]:
    async with connect(valkey) as client:
        yield client


@pytest_asyncio.fixture
async def routing(redis: Any) -> RoutingFunctions:
    routing = RoutingFunctions(ClientCaller(redis), "telemetry:events", Terms(), SMALL)
    await routing.load_library()
    await routing.publish(
        Catalogue(
            version="v1",
            resources=(
                Resource(
                    id="openai-1",
                    name="openai-1",
                    pool_id="p",
                    account_id="account-1",
                    weight=1,
                    base_url="http://127.0.0.1:1/v1",
                    credential="env:OPENAI_API_KEY",
                ),
            ),
        ),
        "event",
    )
    return routing


async def answered(
    routing: RoutingFunctions, number: int, session: str, learned: tuple[str, ...] = ()
) -> None:
    ask = Ask(
        f"r{number}", f"d{number}", 1, "gw", None, session, digest(session), "", (),
        account_bound=False, tried=(), previous="", lease=b'{"id":"r"', draw=0,
    )  # fmt: skip
    await routing.acquire(ask)
    await routing.release(
        Release(
            request_id=f"r{number}",
            resource_id="openai-1",
            gateway_id="gw",
            session=digest(session),
            verdict=Verdict(kind="ok"),
            model=None,
            learned=learned,
            event=b'{"id":"r"}',
        )
    )


async def test_a_new_session_for_each_request_fills_no_redis(
    redis: Any, routing: RoutingFunctions
) -> None:
    for number in range(2 * MOST):
        await answered(routing, number, f"session-{number}")
        if number % 100 == 0:  # an active session
            await answered(routing, number, "regular")
    assert await redis.dbsize() <= MOST + SLACK
    # The index of sessions shrinks with them.
    assert await redis.zcard(DEFAULT.sessions()) <= MOST + SLACK
    assert await redis.exists(DEFAULT.catalogue())
    assert await redis.xlen("telemetry:events") >= 4 * MOST  # the ledger loses nothing


async def test_unknown_ids_fill_no_redis(redis: Any, routing: RoutingFunctions) -> None:
    """Unknown ids are not stored for each request: SQL's negative answers are cached
    too."""
    for number in range(0, 4 * MOST, 8):
        ids = dict.fromkeys(digest(f"resp_{number + i}") for i in range(8))
        await routing.adopt({}, ids)
    assert await redis.dbsize() <= MOST + SLACK


async def test_minted_ids_fill_no_redis(redis: Any, routing: RoutingFunctions) -> None:
    for number in range(60):
        learned = tuple(digest(f"msg_{number}_{i}") for i in range(100))
        await answered(routing, number, "one", learned)
    assert await redis.dbsize() <= MOST + SLACK


async def test_those_go_whose_time_is_soonest_over(
    redis: Any, routing: RoutingFunctions
) -> None:
    """A flood of unknown ids evicts its own entries before known ones."""
    for number in range(MOST // 4):
        await routing.adopt({digest(f"session-{number}"): HOME}, {})
    for number in range(0, 6 * MOST, 8):
        ids = dict.fromkeys(digest(f"resp_{number + i}") for i in range(8))
        await routing.adopt({}, ids)
    left = [
        await redis.exists(function_keys.session(digest(f"session-{number}")))
        for number in range(MOST // 4)
    ]
    assert sum(left) > MOST // 5
    assert await redis.dbsize() <= MOST + SLACK


async def test_keys_of_others_are_not_ended(
    redis: Any, routing: RoutingFunctions
) -> None:
    await redis.mset({f"theirs:{number}": 1 for number in range(MOST + 500)})
    await answered(routing, 0, "session", tuple(digest(f"id-{i}") for i in range(128)))
    assert len([key async for key in redis.scan_iter("theirs:*", 1000)]) == MOST + 500
    assert await redis.exists(DEFAULT.catalogue())


async def test_the_bound_is_on_the_keys_of_a_stack(
    redis: Any, routing: RoutingFunctions
) -> None:
    """What another stack remembers ends nothing here, and is not ended."""
    theirs = {f"{{b_2}}:bound:{number}": "-" for number in range(3 * MOST)}
    await redis.mset(theirs)
    ids = [digest(f"resp_{number}") for number in range(4 * MOST)]
    for start in range(0, MOST // 2, 8):
        await routing.adopt({}, dict.fromkeys(ids[start : start + 8], HOME))
    assert await redis.exists(*map(function_keys.bound, ids[: MOST // 2])) == MOST // 2
    for start in range(0, 4 * MOST, 8):
        await routing.adopt({}, dict.fromkeys(ids[start : start + 8]))
    # One name in four is ours, which is known by a look at some of them.
    left = await redis.exists(*map(function_keys.bound, ids))
    assert 0.75 * MOST < left < 1.25 * MOST
    assert await redis.exists(*theirs) == 3 * MOST


async def test_sessions_that_ended_leave_the_index_without_a_router(
    redis: Any, routing: RoutingFunctions
) -> None:
    await redis.zadd(DEFAULT.sessions(), {f"old-{number}": 1 for number in range(500)})
    for number in range(70):
        await answered(routing, number, f"session-{number}")
    assert await redis.zcard(DEFAULT.sessions()) == 70


async def test_model_names_fill_no_redis(redis: Any, routing: RoutingFunctions) -> None:
    """Each has its own cooldown if the upstream answers 429 to any name."""
    limited = Verdict(kind="limited", cause="429", cooldown_ms=60_000)
    for number in range(1_100):
        release = Release(
            request_id=f"r{number}",
            resource_id="openai-1",
            gateway_id="gw",
            session="",
            verdict=limited,
            model=f"model-{number}",
            learned=(),
            event=None,
        )
        await routing.release(release)
    assert await redis.zcard("{rpx}:pauses") == 1_000
    assert len([key async for key in redis.scan_iter("{rpx}:pauses:*", 1000)]) == 1_000
