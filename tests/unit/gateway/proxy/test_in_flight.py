"""Requests from their arrival to their settlement, which happens once."""

from pathlib import Path

import pytest

from libs.common.bodies.hints import Hints
from libs.common.headers import NO_KINDS
from libs.common.proxy_keys import Principal
from libs.common.routing.types import (
    Decision,
    Owner,
    digest,
)
from services.gateway import metrics
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.server.request import Request
from services.gateway.upstream.errors import Broken
from tests.support.memory.clock import settled, timeless
from tests.support.memory.plane import World, answer
from tests.support.memory.requests import (
    COMPLETED,
    CREATED,
    KEY,
    STREAMING,
    asked,
    one_row,
)
from tests.support.memory.twin import Twin, resource


@timeless
async def test_an_answer_names_the_account_of_its_key(tmp_path: Path) -> None:
    twin = Twin(resource("a", account_id="a"))
    world = World(tmp_path, twin)
    for _ in range(2):
        _, upstream = await asked(world)
        upstream.feed(answer(b"{}", (b"openai-organization", b"org-1")))
        await settled()
    assert twin.named == [("a", "org-1")]


@timeless
async def test_a_trial_that_is_answered_frees_the_others_at_once(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    twin.says.append(Decision("a", "weighted_least_connections", "v3", trial=True))
    _, upstream = await asked(world)
    upstream.feed(STREAMING + CREATED)
    await settled()
    (first,) = twin.released
    assert (first.verdict and first.verdict.kind, first.event) == ("ok", None)
    upstream.feed(COMPLETED)
    upstream.hangs_up()
    await settled()
    assert len(twin.released) == 2


@timeless
async def test_a_keys_requests_are_its_own_and_its_tokens_counted(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    world.table.put(Principal(id="k", pool_id="pool", tokens_per_minute=9))
    _, upstream = await asked(world, b'{"model":"m"}', KEY)
    body = (
        b'{"id":"resp_1","object":"response",'
        b'"usage":{"input_tokens":1,"output_tokens":2,"total_tokens":3}}'
    )
    upstream.feed(answer(body))
    row = await one_row(world)
    assert (row["proxy_key_id"], row["pool_id"]) == ("k", "pool")
    assert world.table.spent == [("k", 3)]


LONG_KEY = "sk-proj-0123456789abcdef"


def arrived(world: World) -> Lifecycle:
    return world.in_flight.arrived(Request("POST", b"/v1/responses", []))


@timeless
async def test_a_request_arrives_with_a_record_and_no_row(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    life = arrived(world)
    record = life.record
    assert (record.method, record.path, record.gateway_id, record.transport) == (
        "POST",
        "/v1/responses",
        "gw-1",
        "http",
    )
    world.in_flight.settle(life, None)
    assert (world.requests, twin.released) == ([], [])
    world.is_at_rest()


@timeless
async def test_a_turn_arrives_on_a_socket(tmp_path: Path, twin: Twin) -> None:
    world = World(tmp_path, twin)
    life = world.in_flight.arrived_on_socket(Request("GET", b"/v1/responses", []))
    assert (life.record.method, life.record.transport) == ("WS", "ws")


@timeless
async def test_a_request_is_settled_once(tmp_path: Path, twin: Twin) -> None:
    world = World(tmp_path, twin, capture=1000)
    life, flight = arrived(world), world.in_flight
    life.admit(b"/responses", Hints(), None)
    flight.admitted(life)
    assert flight.active == {life.record.id: life}
    before = metrics.requests["cancelled"]
    life.cancelled()
    capture = world.ledger.capturer.begin(b"{}", NO_KINDS)
    for _ in range(3):
        flight.settle(life, capture)
    world.is_at_rest()
    assert metrics.requests["cancelled"] == before + 1
    assert len(twin.released) == 1
    assert world.requests[0]["outcome"] == "cancelled"


@pytest.mark.parametrize("degraded", [False, True])
@timeless
async def test_a_failed_attempt_is_judged_once(
    tmp_path: Path, twin: Twin, degraded: bool
) -> None:
    world = World(tmp_path, twin)
    life, flight = arrived(world), world.in_flight
    life.admit(b"/responses", Hints(), None)
    flight.admitted(life)
    life.acquired(Decision("a", "x", "v", degraded=degraded), "account", 1)
    await world.catalogue.refresh()
    world.offline.local.publish(twin.local.resources.values())
    life.failed(Broken("x"))
    before = metrics.attempts["fault"]
    flight.attempt_failed(life)
    flight.settle(life, None)
    verdicts = [release.verdict and release.verdict.kind for release in twin.released]
    assert verdicts == ["fault", None]
    assert metrics.attempts["fault"] == before + 1
    seen = world.offline.local.health["a"].failures
    assert (seen > 0) is degraded


@timeless
async def test_what_completed_is_remembered_for_the_time_without_redis(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    _, upstream = await asked(world, b'{"metadata":{"session_id":"s"}}')
    upstream.feed(answer())
    row = await one_row(world)
    owner = Owner(row["resource_id"], row["account_id"], "")
    assert world.offline.local.ids[digest("resp_1")] == owner
    assert list(world.offline.local.sessions.values()) == [owner]


@pytest.mark.parametrize("account", [None, LONG_KEY])
@timeless
async def test_an_account_that_is_no_account_is_not_learned(
    tmp_path: Path, account: str | None
) -> None:
    twin = Twin(resource("a", account_id="a"))
    world = World(tmp_path, twin)
    world.keys["KEY_A"] = LONG_KEY
    _, upstream = await asked(world)
    named = [] if account is None else [(b"openai-organization", account.encode())]
    upstream.feed(answer(b"{}", *named))
    await one_row(world)
    assert twin.named == []
