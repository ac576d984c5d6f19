import pytest

from libs.common.errors import StoreAway
from services.ingest.readiness import readiness


async def fine() -> int:
    return 3


async def away() -> None:
    raise StoreAway


@pytest.mark.asyncio
async def test_ready_when_both_ends_answer() -> None:
    verdict = await readiness({"redis": fine, "sql": fine})
    assert verdict.ok
    assert verdict.degraded == ()


@pytest.mark.asyncio
async def test_not_ready_says_which_end_is_away() -> None:
    verdict = await readiness({"redis": fine, "sql": away})
    assert not verdict.ok
    assert verdict.degraded == ("sql",)
    assert verdict.details["redis"] == "ok"
    assert "did not answer" in verdict.details["sql"]
