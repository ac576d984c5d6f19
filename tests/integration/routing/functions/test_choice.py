"""Which resource a request gets, and what the decision tells of it."""

from collections import Counter

import pytest

from libs.common.errors import NoCatalogue
from libs.common.redis.keys import DEFAULT
from libs.common.routing.types import NoResources, UnknownPool, digest
from libs.common.upstream_answers.verdicts import Verdict
from tests.integration.routing.functions.desk import REFUSED, STREAM, Desk, resource

pytestmark = pytest.mark.asyncio


async def test_without_a_catalogue_there_is_no_choice(desk: Desk) -> None:
    with pytest.raises(NoCatalogue):
        await desk.acquire()
    await desk.publish()
    with pytest.raises(NoResources):
        await desk.acquire()


async def test_without_a_library_there_is_no_choice(desk: Desk) -> None:
    await desk.redis.execute_command("FUNCTION", "FLUSH")
    with pytest.raises(NoCatalogue):
        await desk.acquire()


async def test_held_requests_spread_by_weight_and_all_leases_end(desk: Desk) -> None:
    await desk.publish(resource(1, weight=2), resource(2), resource(3), resource(4))
    for n in range(100):
        desk.draw = n * 7919
        await desk.acquire(f"h{n}")
    expected = {"openai-1": 40, "openai-2": 20, "openai-3": 20, "openai-4": 20}
    assert await desk.in_flight() == expected
    for n in range(100):
        await desk.release(f"h{n}")
        await desk.release(f"h{n}")  # a second release changes nothing
    assert set((await desk.in_flight()).values()) == {0}


async def test_ties_fall_to_the_draw(desk: Desk) -> None:
    await desk.publish(resource(1), resource(2), resource(3))
    chosen = Counter()  # type: ignore[var-annotated]
    for n in range(30):
        desk.draw = n
        chosen[await desk.serve()] += 1
    assert chosen == {"openai-1": 10, "openai-2": 10, "openai-3": 10}


async def test_asking_again_moves_the_lease(desk: Desk) -> None:
    await desk.publish(resource(1), resource(2))
    first = await desk.acquire("a")
    second = await desk.acquire("a", attempt=2, tried=(first.resource_id,))
    assert second.resource_id != first.resource_id
    assert sum((await desk.in_flight()).values()) == 1
    await desk.release("a")
    assert sum((await desk.in_flight()).values()) == 0


async def test_a_pool_is_kept_and_an_unknown_one_named(desk: Desk) -> None:
    await desk.publish(resource(1), resource(2, pool="q"))
    assert {await desk.serve(pool_id="q") for _ in range(5)} == {"openai-2"}
    with pytest.raises(UnknownPool) as unknown:
        await desk.acquire(pool_id="nope")
    assert unknown.value.pools == ("p", "q")


async def test_publishing_the_same_version_does_nothing(desk: Desk) -> None:
    assert await desk.publish(resource(1))
    assert not await desk.publish(resource(1))
    assert len(await desk.events("registry")) == 1


async def test_a_new_catalogue_keeps_leases_and_weighs_anew(desk: Desk) -> None:
    await desk.publish(resource(1), resource(2))
    await desk.acquire("a")
    busy = desk.decisions["a"].resource_id
    await desk.publish(resource(1), resource(2), resource(3), version="v2")
    assert (await desk.in_flight())[busy] == 1
    assert busy not in {await desk.serve() for _ in range(4)}


async def test_a_decision_explains_itself(desk: Desk) -> None:
    await desk.publish(resource(1, weight=2), resource(2), resource(3))
    await desk.routing.verdict("openai-2", REFUSED)
    await desk.routing.verdict("openai-3", Verdict(kind="limited", cooldown_ms=60_000))
    await desk.acquire("a", session_id='s"\u00e9')
    (decision,) = await desk.events("decision")
    assert decision == {
        "request_id": "a",
        "attempt": 1,
        "session_id": 's"\u00e9',
        "pool_id": None,
        "created_at_ms": desk.now,
        "resource_id": "openai-1",
        "reason": "weighted_least_connections",
        "candidates": [
            {
                "resource": "openai-1",
                "score": 0.5,
                "in_flight": 0,
                "weight": 2,
                "health": "unknown",
            },
            {
                "resource": "openai-3",
                "weight": 1,
                "health": "degraded",
                "refused": f"cooling down until {desk.now + 60_000}",
            },
            {
                "resource": "openai-2",
                "weight": 1,
                "health": "unhealthy",
                "refused": "key refused by the upstream",
            },
        ],
    }


async def test_no_key_lives_outside_the_hash_tag(desk: Desk) -> None:
    await desk.publish(resource(1))
    await desk.acquire("a", session_id="s" * 10_000)
    await desk.release("a", session_id="s" * 10_000, learned=(digest("\x00" * 999),))
    names = {name.decode() for name in await desk.redis.keys("*")}
    assert all(n == STREAM or n.startswith(DEFAULT.tag) for n in names)
    assert max(map(len, names)) < 80
