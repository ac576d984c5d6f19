"""A budget is counted to the token over gateways, transports and an emptied Redis. The
long run is `python -m bench.budgets`."""

from pathlib import Path

import pytest

from tests.support.processes.havoc import Scale, scene
from tests.support.processes.spenders import Plan, spent_of

SCALE = Scale(
    answers=0, rounds=0, at_once=0, postgres_away_s=0, between_s=(0, 0), gateways=3
)


@pytest.mark.timeout(400)
@pytest.mark.asyncio
async def test_a_budget_is_exact_through_the_loss_of_redis(tmp_path: Path) -> None:
    async with scene(SCALE, tmp_path) as at_scene:
        for reserve in (False, True):
            result = await spent_of(at_scene, Plan(12, 6.0, reserve=reserve))
            assert result.faults() == [], result
            assert set(result.seen.answers) == {"HTTP", "SSE", "WebSocket"}
