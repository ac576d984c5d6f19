"""Whichever process is killed, every accepted request is in SQL exactly once. The long
run is `make chaos`."""

from pathlib import Path

import pytest

from tests.support.processes.havoc import Scale, scene, wreak

SMALL = Scale(
    answers=500,
    rounds=1,
    at_once=24,
    postgres_away_s=1.0,
    between_s=(0.3, 0.8),
    gateways=2,
    delay_ms=200,  # much longer than the clients need, also on a busy machine
)


@pytest.mark.asyncio
async def test_kill_9_of_anything_loses_no_request(tmp_path: Path) -> None:
    async with scene(SMALL, tmp_path) as at_scene:
        outcome = await wreak(at_scene, SMALL)
    assert outcome.faults() == []
    # Requests were in progress on the killed processes, and the ledger was polled.
    assert outcome.ends()["interrupted"] > 0
    assert outcome.ledgers > 0
