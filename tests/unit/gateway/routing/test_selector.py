"""Choosing the resource of an attempt: by Redis, by SQL's owners, or by this gateway
alone."""

from pathlib import Path
from typing import Any

import pytest

from libs.common.errors import NoCatalogue, RedisAway
from libs.common.routing.budgets import quota_at
from libs.common.routing.types import (
    Ask,
    Busy,
    Decision,
    LimitsUnknown,
    NoCapacity,
    NoResources,
    Owner,
    OwnerGone,
    OwnerLimited,
    Refusal,
    SpendUnknown,
    UnknownIds,
    UnknownPool,
    digest,
)
from services.gateway.errors import Problem
from services.gateway.routing.selector import problem_of
from tests.support.memory.clock import clock, timeless
from tests.support.memory.plane import World
from tests.support.memory.twin import Twin, refusal_with_event, resource

IN_B = Owner("b", "account-b")
TOLD = {"resource_id": "b", "account_id": "account-b"}
LONG_AGO_MS = 3_600_000


def ask(**over: Any) -> Ask:
    given: dict[str, Any] = {
        "request_id": "r", "decision_id": "d", "attempt": 1, "gateway_id": "gw-1",
        "pool_id": None, "session_id": None, "session": "", "model": "", "bound": (),
        "account_bound": False, "tried": (), "previous": "", "lease": b"{", "draw": 0,
    }  # fmt: skip
    return Ask(**(given | over))


NAMING = ask(bound=(digest("resp_1"),))
IDS = ("resp_1",)


async def made(root: Path, *names: str) -> World:
    world = World(root, Twin(*map(resource, names or ("a", "b"))))
    await world.catalogue.refresh()
    return world


@timeless
async def test_redis_decides_and_the_decision_is_in_the_journal(tmp_path: Path) -> None:
    world = await made(tmp_path)
    decision = await world.selector.decide(ask(), ())
    assert [told["resource_id"] for told in world.decisions] == [decision.resource_id]
    target = world.selector.known(decision)
    assert target is not None
    assert target is await world.selector.find(decision)


@timeless
async def test_a_resource_whose_key_is_not_here_is_not_asked_for(
    tmp_path: Path,
) -> None:
    world = await made(tmp_path, "a", "nowhere")
    for _ in range(3):
        assert (await world.selector.decide(ask(), ())).resource_id == "a"
    assert {asked.tried for asked in world.twin.asked} == {("nowhere",)}


@pytest.mark.parametrize("written", [True, False])
@timeless
async def test_a_refusal_is_in_the_journal_if_redis_wrote_it_down(
    tmp_path: Path, written: bool
) -> None:
    world = await made(tmp_path)
    refusal: Refusal = NoCapacity(5)
    world.twin.says.append(refusal_with_event(refusal) if written else refusal)
    with pytest.raises(NoCapacity):
        await world.selector.decide(ask(), ())
    assert len(world.decisions) == written


@timeless
async def test_ids_that_sql_knows_lead_to_their_owner(tmp_path: Path) -> None:
    world = await made(tmp_path)
    world.owners = {"ids": {"resp_1": TOLD}, "session": None}
    world.twin.says.append(UnknownIds(LONG_AGO_MS))
    decision = await world.selector.decide(NAMING, IDS)
    assert (decision.resource_id, decision.reason) == ("b", "response_affinity")
    assert world.twin.asked[-1].resolved
    assert world.twin.adopted == [({}, {digest("resp_1"): IN_B})]


@timeless
async def test_ids_that_nobody_knows_may_go_anywhere(tmp_path: Path) -> None:
    world = await made(tmp_path)
    world.twin.says.append(UnknownIds(LONG_AGO_MS))
    decision = await world.selector.decide(NAMING, IDS)
    assert decision.reason == "weighted_least_connections"


@timeless
async def test_a_redis_that_was_emptied_may_be_told_by_another_gateway(
    tmp_path: Path,
) -> None:
    world = await made(tmp_path)
    unknown = [UnknownIds(100), UnknownIds(150), NoCatalogue()]
    world.twin.says.extend([*unknown, Decision("b", "response_affinity", "v2")])
    decision = await world.selector.decide(NAMING, IDS)
    assert decision.resource_id == "b"
    assert not world.twin.asked[-1].resolved


@pytest.mark.parametrize(
    "end",
    [UnknownIds(LONG_AGO_MS), RedisAway(), None],
    ids=["told long ago", "away again", "nobody tells"],
)
@timeless
async def test_it_is_not_waited_for_longer_than_others_need(
    tmp_path: Path, end: Exception | None
) -> None:
    world = await made(tmp_path)
    world.twin.says.append(UnknownIds(100))
    if end is not None:
        world.twin.says.append(end)
    began = clock().time()
    decision = await world.selector.decide(NAMING, IDS)
    assert decision.reason == "weighted_least_connections"
    # Three times one second and a heartbeat of one.
    assert clock().time() - began < (6.2 if end is None else 0.1)


@timeless
async def test_redis_may_leave_while_owners_are_looked_for(tmp_path: Path) -> None:
    world = await made(tmp_path)
    world.owners = {"ids": {"resp_1": TOLD}, "session": None}
    world.twin.says.append(UnknownIds(LONG_AGO_MS))
    world.twin.away = True
    decision = await world.selector.decide(NAMING, IDS)
    assert (decision.resource_id, decision.degraded) == ("b", True)
    # And is remembered for the next.
    assert (await world.selector.decide(NAMING, IDS)).resource_id == "b"


@timeless
async def test_while_redis_is_away_the_gateway_decides_and_says_so(
    tmp_path: Path,
) -> None:
    world = await made(tmp_path)
    world.twin.away = True
    decision = await world.selector.decide(ask(), ())
    assert decision.degraded
    assert world.decisions[0]["degraded"]
    assert world.journal.unsent_events == 1
    assert (await world.selector.find(decision)).resource.id == decision.resource_id


@timeless
async def test_while_redis_is_away_the_router_may_still_know(tmp_path: Path) -> None:
    world = await made(tmp_path)
    world.owners = {"ids": {"resp_1": TOLD}, "session": None}
    world.twin.away = True
    decision = await world.selector.decide(NAMING, IDS)
    assert (decision.resource_id, decision.degraded) == ("b", True)


@timeless
async def test_without_a_catalogue_the_last_copy_serves(tmp_path: Path) -> None:
    world = await made(tmp_path)
    world.twin.says.append(NoCatalogue())
    assert (await world.selector.decide(ask(), ())).degraded


@pytest.mark.parametrize("away", [True, False])
@timeless
async def test_before_there_was_a_catalogue_nothing_is_decided(
    tmp_path: Path, away: bool
) -> None:
    world = World(tmp_path, Twin())
    world.twin.away = away
    with pytest.raises(Problem) as refused:
        await world.selector.decide(ask(), ())
    assert (refused.value.status, refused.value.code) == (503, "no_capacity")


@timeless
async def test_a_decision_of_a_newer_catalogue_reads_it(tmp_path: Path) -> None:
    world = await made(tmp_path)
    world.twin.publish(*map(resource, ("a", "b", "c")))
    decision = Decision("c", "weighted_least_connections", "v3")
    assert world.selector.known(decision) is None
    assert (await world.selector.find(decision)).resource.id == "c"
    assert world.selector.known(decision) is not None


@timeless
async def test_a_resource_that_is_gone_has_no_target(tmp_path: Path) -> None:
    world = await made(tmp_path)
    with pytest.raises(Problem) as refused:
        await world.selector.find(Decision("gone", "", "v2"))
    assert refused.value.code == "no_capacity"
    world.twin.away = True
    with pytest.raises(Problem):
        await world.selector.find(Decision("gone", "", "v9"))


@pytest.mark.parametrize(
    ("refusal", "asked", "method", "status", "code"),
    [
        (UnknownPool(("p", "q")), ask(pool_id="x"), "POST", 400, "unknown_pool"),
        (UnknownPool(()), ask(pool_id="@local"), "POST", 404, "model_not_found"),
        (NoResources(), ask(), "POST", 503, "no_resources_configured"),
        (NoCapacity(1500), ask(), "POST", 503, "no_capacity"),
        (OwnerLimited(1500), ask(), "POST", 429, "rate_limit_exceeded"),
        (Busy(1500), ask(), "POST", 429, "at_capacity"),
        (OwnerGone(), ask(), "POST", 400, "previous_response_not_found"),
        (
            OwnerGone(), ask(account_bound=True), "POST", 400,
            "invalid_encrypted_content",
        ),
        (OwnerGone(), ask(), "GET", 503, "affinity_owner_unavailable"),
    ],
)  # fmt: skip
def test_a_refusal_is_told_in_words_that_clients_act_upon(
    refusal: Refusal, asked: Ask, method: str, status: int, code: str
) -> None:
    problem = problem_of(refusal, asked, method)
    assert (problem.status, problem.code) == (status, code)


LIMITED = ask(quota=quota_at("k", 9, None, (), 0))


@timeless
async def test_limits_that_redis_does_not_know_are_told(tmp_path: Path) -> None:
    world = await made(tmp_path)
    world.twin.says.extend([LimitsUnknown(), Decision("b", "panic", "v2")])
    assert (await world.selector.decide(LIMITED, ())).resource_id == "b"
    assert [asked.tells for asked in world.twin.asked] == [False, True]
    # Redis knows them from then on, if it is not emptied.
    await world.selector.decide(LIMITED, ())
    assert not world.twin.asked[-1].tells
    world.twin.says.extend([LimitsUnknown(), UnknownIds(LONG_AGO_MS)])
    await world.selector.decide(LIMITED, ())
    assert (world.twin.asked[-1].tells, world.twin.asked[-1].resolved) == (True, True)


@timeless
async def test_limits_are_told_while_their_spend_is_summed(tmp_path: Path) -> None:
    """Redis may be emptied again meanwhile."""
    world = await made(tmp_path)
    world.twin.says.extend([SpendUnknown("key:k"), SpendUnknown("key:k")])
    assert (await world.selector.decide(LIMITED, ())).resource_id
    assert [asked.tells for asked in world.twin.asked] == [False, True, True]
