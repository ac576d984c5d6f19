"""Leases of gateways that stopped, and leases that nobody knows."""

import pytest

from tests.integration.routing.functions.desk import Desk, resource

pytestmark = pytest.mark.asyncio


class TestReaping:
    async def test_a_silent_gateway_loses_its_leases(self, desk: Desk) -> None:
        await desk.publish(resource(1, "acct"))
        await desk.routing.heartbeat("gw")
        await desk.acquire("a")
        await desk.acquire("b", gateway_id="other")
        desk.now += 5_000
        await desk.routing.heartbeat("other")
        assert await desk.routing.reap(4_000) == 1
        assert await desk.in_flight() == {"openai-1": 1}
        (event,) = await desk.events("request")
        assert event == {
            "id": "a",
            "model": "m",
            "attempts": 1,
            "resource_id": "openai-1",
            "account_id": "acct",
            "completed_at_ms": desk.now,
            "outcome": "interrupted",
            "error_code": "gateway_lost",
            "error_message": "The gateway that served this request stopped answering.",
        }
        assert await desk.routing.reap(4_000) == 0

    async def test_a_gateway_reaped_while_paused_is_watched_again(
        self, desk: Desk
    ) -> None:
        await desk.publish(resource(1))
        await desk.routing.heartbeat("gw")
        desk.now += 5_000
        await desk.routing.reap(4_000)
        await desk.acquire("a")  # no heartbeat since
        assert await desk.routing.reap(4_000, strays=True) == 0
        desk.now += 5_000
        assert await desk.routing.reap(4_000) == 1

    async def test_leases_nobody_knows_can_be_dropped(self, desk: Desk) -> None:
        await desk.publish(resource(1))
        await desk.acquire("a")
        await desk.acquire("b")
        place, held = await desk.routing.held("gw")
        assert (place, set(held)) == ((), {"a", "b"})
        assert await desk.routing.abandon("gw", ["a", "unknown"]) == 1
        assert await desk.in_flight() == {"openai-1": 1}
        assert await desk.events("request") == []
