"""Requests that wait for a place."""

import pytest

from libs.common.routing.functions import RoutingFunctions, Terms
from libs.common.routing.types import Lease, Place, Queued
from services.router.function_library import LIBRARY
from tests.integration.routing.functions.desk import STREAM, Desk, resource

pytestmark = pytest.mark.asyncio


async def test_a_request_that_waits_holds_no_resource(desk: Desk) -> None:
    """Not even after its gateway lost the connection, and restored its leases."""
    desk.routing = RoutingFunctions(
        desk.shared, STREAM, Terms(most_in_flight=1), LIBRARY, lambda: desk.now
    )
    await desk.publish(resource(1), resource(2))
    first = await desk.acquire("a")
    await desk.acquire("b")
    again = {"attempt": 2, "tried": (first.resource_id,), "place": Place("s", 1_000)}
    for _ in range(2):
        with pytest.raises(Queued):
            await desk.acquire("a", **again)
        assert (await desk.in_flight())[first.resource_id] == 0
        await desk.routing.resume("gw", [Lease("a", first.resource_id, b"{}")])
    with pytest.raises(Queued):
        await desk.acquire("a", **again)
    assert (await desk.acquire("c")).resource_id == first.resource_id
