"""Sessions and ids lead to the resource, or at least the account, of their owner."""

from contextlib import suppress

import pytest

from libs.common.routing.types import OwnerGone, OwnerLimited, digest
from libs.common.upstream_answers.verdicts import Verdict
from tests.integration.routing.functions.desk import (
    FAULT,
    LIMITED,
    NEUTRAL,
    REFUSED,
    Desk,
    resource,
)

pytestmark = pytest.mark.asyncio


async def test_a_session_stays_once_it_succeeded(desk: Desk) -> None:
    await desk.publish(resource(1), resource(2))
    first = await desk.acquire("a", session_id="s")
    await desk.release("a", NEUTRAL, session_id="s")
    assert await desk.routing.affinity_count() == 0  # an aborted request binds nothing
    await desk.acquire("b", session_id="s")
    await desk.release("b", session_id="s")
    home = desk.decisions["b"].resource_id
    for n in range(5):
        decision = await desk.acquire(f"c{n}", session_id="s")
        assert (decision.resource_id, decision.reason) == (home, "session_affinity")
    assert first.reason == "weighted_least_connections"


async def test_a_session_without_bound_state_moves_and_is_rebound(desk: Desk) -> None:
    await desk.publish(resource(1), resource(2))
    await desk.acquire("a", session_id="s")
    await desk.release("a", session_id="s")
    home = desk.decisions["a"].resource_id
    await desk.serve(LIMITED, session_id="s")
    moved = await desk.acquire("b", session_id="s")
    assert (moved.reason, moved.resource_id == home) == ("session_failover", False)
    await desk.release("b", session_id="s")
    assert (await desk.acquire("c", session_id="s")).reason == "session_affinity"


async def test_a_minted_id_leads_home(desk: Desk) -> None:
    await desk.publish(resource(1), resource(2), resource(3))
    await desk.acquire("a")
    await desk.release("a", learned=(digest("resp_1"),))
    home = desk.decisions["a"].resource_id
    for n in range(6):
        found = await desk.acquire(f"b{n}", bound=(digest("?"), digest("resp_1")))
        assert (found.resource_id, found.reason) == (home, "response_affinity")


@pytest.mark.parametrize(
    ("cause", "verdict", "over"),
    [
        ("cooling_down", LIMITED, {}),
        ("unhealthy", REFUSED, {}),
        ("another_pool", None, {"pool_id": "q"}),
        ("gone", None, {}),
    ],
)
async def test_a_first_decision_says_why_a_home_is_passed_over(
    desk: Desk, cause: str, verdict: Verdict | None, over: dict[str, str]
) -> None:
    home, *others = resource(1, weight=9), resource(2), resource(3, pool="q")
    await desk.publish(home, *others)
    bound = {"bound": (digest("resp_1"),)} if cause != "another_pool" else {}
    await desk.acquire("a", session_id="s")
    await desk.release("a", session_id="s", learned=(digest("resp_1"),))
    if verdict is not None:
        await desk.routing.verdict(home.id, verdict)
    if cause == "gone":
        sibling = resource(4, account=home.account_id)
        await desk.publish(*others, sibling, version="v2")
    for asked in ({"session_id": "s"}, bound):
        with suppress(OwnerGone, OwnerLimited):
            await desk.acquire(**asked, **over)
        *_, event = await desk.events("decision")
        assert event.get("cause") == (cause if asked else None)
    # On a later attempt the gateway has newer knowledge.
    await desk.acquire(session_id="s", attempt=2, cause="timeout", **over)
    *_, event = await desk.events("decision")
    assert event["cause"] == "timeout"


class TestAccountBound:
    async def bound(self, desk: Desk) -> tuple[str, ...]:
        """An id minted by openai-1."""
        await desk.acquire("home", tried=("openai-2", "openai-3"))
        await desk.release("home", learned=(digest("resp_1"),), session_id="s")
        return (digest("resp_1"),)

    async def test_fails_over_to_a_sibling_only(self, desk: Desk) -> None:
        await desk.publish(resource(1, "a"), resource(2, "b"), resource(3, "a"))
        bound = await self.bound(desk)
        await desk.acquire("x", bound=bound)
        await desk.release("x", LIMITED)
        for n in range(4):
            found = await desk.acquire(f"y{n}", bound=bound)
            assert found.resource_id == "openai-3"

    async def test_a_limited_owner_without_sibling_is_waited_for(
        self, desk: Desk
    ) -> None:
        await desk.publish(resource(1, "a"), resource(2, "b"))
        bound = await self.bound(desk)
        await desk.acquire("x", bound=bound)
        await desk.release("x", LIMITED)
        with pytest.raises(OwnerLimited) as limited:
            await desk.acquire("y", bound=bound)
        assert limited.value.retry_after_ms == 5_000

    async def test_a_failing_owner_without_sibling_is_tried_anyway(
        self, desk: Desk
    ) -> None:
        await desk.publish(resource(1, "a"), resource(2, "b"))
        bound = await self.bound(desk)
        for n in range(3):
            await desk.acquire(f"x{n}", bound=bound)
            await desk.release(f"x{n}", FAULT)
        assert await desk.health("openai-1") == "degraded"
        assert (await desk.acquire("y", bound=bound)).resource_id == "openai-1"

    async def test_a_refused_owner_without_sibling_is_gone(self, desk: Desk) -> None:
        await desk.publish(resource(1, "a"), resource(2, "b"))
        bound = await self.bound(desk)
        await desk.acquire("x", bound=bound)
        await desk.release("x", REFUSED)
        with pytest.raises(OwnerGone):
            await desk.acquire("y", bound=bound)

    async def test_encrypted_content_binds_the_session(self, desk: Desk) -> None:
        await desk.publish(resource(1, "a"), resource(2, "b"))
        await self.bound(desk)
        await desk.acquire("x", session_id="s", account_bound=True)
        await desk.release("x", REFUSED)
        with pytest.raises(OwnerGone):
            await desk.acquire("y", session_id="s", account_bound=True)
        # The same session without bound state moves freely.
        assert (await desk.acquire("z", session_id="s")).reason == "session_failover"

    async def test_a_sibling_whose_pause_is_over_is_tried(self, desk: Desk) -> None:
        await desk.publish(resource(1, "a"), resource(2, "b"), resource(3, "a"))
        bound = await self.bound(desk)
        await desk.routing.verdict("openai-1", REFUSED)
        await desk.routing.verdict("openai-3", LIMITED)
        with pytest.raises(OwnerLimited):
            await desk.acquire("x", bound=bound)
        desk.now += 5_001
        assert (await desk.acquire("y", bound=bound)).resource_id == "openai-3"

    async def test_also_when_the_owner_left_the_catalogue(self, desk: Desk) -> None:
        await desk.publish(resource(1, "a"), resource(2, "b"), resource(3, "a"))
        bound = await self.bound(desk)
        await desk.publish(resource(2, "b"), resource(3, "a"), version="v2")
        assert (await desk.acquire("x", bound=bound)).resource_id == "openai-3"
