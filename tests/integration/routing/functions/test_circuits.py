"""The health of resources: pauses, trials, and keys that the upstream refuses."""

import pytest

from libs.common.routing.types import Decision, NoCapacity
from libs.common.upstream_answers.verdicts import Verdict
from tests.integration.routing.functions.desk import (
    FAULT,
    LIMITED,
    NEUTRAL,
    OK,
    REFUSED,
    Desk,
    resource,
)

pytestmark = pytest.mark.asyncio


class TestHealth:
    async def test_three_faults_in_a_row_open_the_circuit(self, desk: Desk) -> None:
        await desk.publish(resource(1))
        for verdict, expected in [
            (FAULT, "unknown"),
            (FAULT, "unknown"),
            (OK, "healthy"),
            (FAULT, "healthy"),
            (NEUTRAL, "healthy"),
            (FAULT, "healthy"),
            (FAULT, "degraded"),
        ]:
            await desk.serve(verdict)
            assert await desk.health("openai-1") == expected

    async def test_panic_takes_the_one_that_is_back_first(self, desk: Desk) -> None:
        await desk.publish(resource(1), resource(2))
        await desk.serve(LIMITED)
        await desk.serve(Verdict(kind="limited", cause="429", cooldown_ms=100))
        decision = await desk.acquire()
        assert (decision.reason, decision.resource_id) == ("panic", "openai-2")

    async def test_no_capacity_when_every_key_is_refused(self, desk: Desk) -> None:
        await desk.publish(resource(1))
        await desk.serve(REFUSED)
        with pytest.raises(NoCapacity):
            await desk.acquire()
        assert (await desk.events("decision"))[-1]["resource_id"] is None

    async def test_half_open_lets_one_through_then_all(self, desk: Desk) -> None:
        await desk.publish(resource(1), resource(2))
        first = await desk.serve(LIMITED)
        desk.now += 5_001
        await desk.acquire("trial")
        assert desk.decisions["trial"].resource_id == first
        others = {await desk.serve() for _ in range(4)}
        assert first not in others
        await desk.release("trial", OK)
        assert await desk.health(first) == "healthy"
        assert first in {await desk.serve() for _ in range(2)}

    async def test_a_failed_trial_doubles_the_pause(self, desk: Desk) -> None:
        await desk.publish(resource(1), resource(2))
        failing = await desk.serve(LIMITED)
        desk.now += 5_001
        assert await desk.serve(FAULT) == failing
        desk.now += 1_999
        assert failing not in {await desk.serve() for _ in range(3)}
        desk.now += 2
        assert await desk.serve() == failing

    async def test_failing_during_a_pause_does_not_double_it(self, desk: Desk) -> None:
        await desk.publish(resource(1), resource(2))
        failing = await desk.serve(LIMITED)
        for _ in range(3):
            await desk.routing.verdict(failing, LIMITED)
        desk.now += 5_001
        assert await desk.serve() == failing

    async def test_a_trial_that_began_well_frees_the_resource(self, desk: Desk) -> None:
        await desk.publish(resource(1), resource(2))
        limited = await desk.serve(LIMITED)
        desk.now += 5_001
        trial = await desk.acquire("trial")
        assert (trial.resource_id, trial.trial) == (limited, True)
        await desk.release("trial", OK, over=False)
        assert await desk.health(limited) == "healthy"
        assert sum((await desk.in_flight()).values()) == 1

    async def test_a_trial_whose_client_left_before_knowing_is_repeated(
        self, desk: Desk
    ) -> None:
        await desk.publish(resource(1), resource(2))
        limited = await desk.serve(LIMITED)
        desk.now += 5_001
        await desk.acquire("trial")
        desk.decisions["trial"] = Decision("", "", "")
        await desk.release("trial", NEUTRAL)
        assert (await desk.acquire("next")).resource_id == limited

    async def test_a_trial_that_says_nothing_is_repeated(self, desk: Desk) -> None:
        await desk.publish(resource(1), resource(2))
        limited = await desk.serve(LIMITED)
        desk.now += 5_001
        assert await desk.serve(NEUTRAL) == limited
        assert await desk.serve() == limited

    async def test_a_refused_key_comes_back_by_a_probe_only(self, desk: Desk) -> None:
        await desk.publish(resource(1), resource(2))
        await desk.acquire("early")
        refused = desk.decisions["early"].resource_id
        await desk.routing.verdict(refused, REFUSED)
        await desk.release("early", OK)  # was in progress before
        assert await desk.health(refused) == "unhealthy"
        assert await desk.routing.verdict(refused, OK) == "healthy"
        transitions = [(e["before"], e["after"]) for e in await desk.events("health")]
        assert transitions == [("unknown", "unhealthy"), ("unhealthy", "healthy")]

    async def test_pauses_merge_by_the_later_end(self, desk: Desk) -> None:
        await desk.publish(resource(1))
        await desk.acquire("a")
        await desk.acquire("b")
        await desk.release("a", LIMITED)
        await desk.release("b", Verdict(kind="limited", cause="429", cooldown_ms=10))
        desk.now += 4_999
        assert (await desk.acquire()).reason == "panic"

    async def test_a_new_key_starts_with_a_clean_record(self, desk: Desk) -> None:
        await desk.publish(resource(1), resource(2))
        await desk.routing.verdict("openai-1", REFUSED)
        renewed = resource(1).model_copy(update={"credential": "env:OTHER"})
        await desk.publish(renewed, resource(2), version="v2")
        assert await desk.health("openai-1") == "unknown"
