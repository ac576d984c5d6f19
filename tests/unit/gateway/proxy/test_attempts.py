"""The retry loop: a request goes elsewhere while that helps, and its client gets
what says most."""

import asyncio
import gzip
import json
from collections.abc import Awaitable
from pathlib import Path

import pytest
import zstandard

from libs.common.bodies.hints import Hints
from libs.common.contracts.catalogue import Alias, ModelTarget
from libs.common.proxy_keys import Principal
from libs.common.routing.types import (
    OTHERS,
    Ask,
    Busy,
    Decision,
    ForeignId,
    NoCapacity,
    Owner,
    OwnerGone,
    OwnerLimited,
    Queued,
    UnknownPool,
    digest,
)
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.proxy.services import Limits
from services.gateway.proxy.steps import Next
from services.gateway.routing.target import Target
from services.gateway.server.request import Request
from services.gateway.upstream.errors import NoFreeConnection, NotSent
from tests.support.memory.clock import clock, settled, timeless
from tests.support.memory.plane import (
    REQUEST_S,
    World,
    answer,
    error,
)
from tests.support.memory.requests import (
    KEY,
    asked,
    one_row,
)
from tests.support.memory.twin import Twin, refusal_with_event, resource


@pytest.mark.parametrize(
    ("said", "cause", "verdict"),
    [
        pytest.param(
            error(429, None, (b"retry-after", b"7")), "rate_limited", "limited",
            id="429",
        ),
        pytest.param(
            error(429, "insufficient_quota"), "insufficient_quota", "exhausted",
            id="no money",
        ),
        pytest.param(error(401, "invalid_api_key"), "key_refused", "refused", id="401"),
        pytest.param(
            error(403, "model_not_found"), "model_refused", "neutral", id="403"
        ),
        pytest.param(error(500), "server_error", "fault", id="500"),
        pytest.param(b"nonsense\r\n\r\n", "connection_lost", "fault", id="no HTTP"),
        pytest.param(b"", "connection_lost", "fault", id="closed"),
        pytest.param(
            b"HTTP/1.1 500 X\r\ncontent-length: 9\r\n\r\n", "connection_lost", "fault",
            id="a refusal cut short",
        ),
    ],
)  # fmt: skip
@timeless
async def test_what_fails_before_the_first_byte_goes_elsewhere(
    tmp_path: Path, twin: Twin, said: bytes, cause: str, verdict: str
) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    upstream.feed(said)
    if not said.startswith(b"HTTP/1.1 4"):
        upstream.hangs_up()
    await settled()
    assert len(world.upstreams) == 2
    world.upstreams[1].feed(answer())
    row = await one_row(world)
    assert (client.status, row["attempts"], row["outcome"]) == (200, 2, "completed")
    first, second = world.decisions
    assert first["resource_id"] != second["resource_id"]
    assert second["cause"] == cause
    assert twin.released[0].verdict is not None
    assert twin.released[0].verdict.kind == verdict


@timeless
async def test_the_ids_of_decisions_ascend_within_a_millisecond(
    tmp_path: Path, twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history of a request is ordered by them."""
    world, acquire, ids = World(tmp_path, twin), twin.acquire, list[str]()

    def noted(ask: Ask) -> Awaitable[Decision]:
        ids.append(ask.decision_id)
        return acquire(ask)

    monkeypatch.setattr(twin, "acquire", noted)
    for _ in range(20):
        await asked(world)
        for said in (error(403, "model_not_found"), answer()):
            world.upstreams[-1].feed(said)
            world.upstreams[-1].hangs_up()
            await settled()
    assert len(set(ids)) == len(ids) == 40
    assert ids == sorted(ids)


@pytest.mark.parametrize(
    ("error_", "verdict", "cause"),
    [
        (NotSent("no route"), "fault", "connect_error"),
        (NoFreeConnection(), "neutral", "no_free_connection"),
    ],
)
@timeless
async def test_who_cannot_be_reached_is_left(
    tmp_path: Path, twin: Twin, error_: Exception, verdict: str, cause: str
) -> None:
    world = World(tmp_path, twin)
    world.wires.error = error_
    client = world.client()
    await client.asks()
    row = await one_row(world)
    assert (client.status, client.code) == (502, "upstream_unreachable")
    assert "3 tried" in row["error_message"]
    kinds = [release.verdict and release.verdict.kind for release in twin.released]
    assert kinds == [verdict] * 3 + [None]  # the last was judged already
    assert [decision["cause"] for decision in world.decisions] == [None, cause, cause]


@timeless
async def test_when_all_fail_the_client_gets_the_last_failure_as_it_was(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin, capture=1000)
    client, _ = await asked(world)
    for number in range(3):
        world.upstreams[number].feed(error(503, f"e{number}", (b"x-mine", b"y")))
        await settled()
    row = await one_row(world)
    assert (client.status, client.code, client.head[b"x-mine"]) == (503, "e2", b"y")
    assert client.head[b"x-proxy-attempts"] == b"3"
    assert (row["status_code"], row["error_code"]) == (503, "e2")
    assert row["error_message"] == "it is e2"


@timeless
async def test_a_request_for_which_nothing_is_free_waits(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    twin.says += [Busy(0), Queued("pool:*"), Queued("pool:*")]
    client = world.client()
    began = clock().time()
    await client.asks()
    await asyncio.sleep(0.1)
    assert client.wire.sent == b""  # every attempt is still possible
    world.upstreams[-1].feed(answer())
    row = await one_row(world)
    assert (client.status, row["attempts"]) == (200, 1)
    assert clock().time() > began
    busy, *queued, served = twin.asked
    assert (busy.place, busy.waited_ms) == (None, None)
    assert [ask.place and ask.place.share for ask in queued] == ["", ""]
    assert served.waited_ms is not None
    assert (world.room.waiting, twin.left) == ({}, [])


@timeless
async def test_one_that_may_not_wait_is_told_when_to_come_back(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    twin.says.append(refusal_with_event(Busy(1500)))
    client = world.client()
    await client.asks()
    row = await one_row(world)
    assert (client.status, client.code) == (429, "at_capacity")
    assert client.head[b"retry-after"] == b"2"
    assert (row["error_code"], len(twin.asked)) == ("at_capacity", 1)


@timeless
async def test_one_whose_client_leaves_does_not_wait_any_more(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    twin.says += [Busy(0), *[Queued("pool:*")] * 9]
    client = world.client()
    await client.asks()
    assert len(world.room.waiting) == 1
    client.wire.hangs_up()
    row = await one_row(world)
    assert (row["outcome"], world.room.waiting, len(twin.left)) == ("cancelled", {}, 1)


@timeless
async def test_the_time_of_a_request_is_over_for_all_its_attempts(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client, _ = await asked(world)
    clock().advance(REQUEST_S)
    world.upstream.check(clock().time())
    row = await one_row(world)
    assert (client.status, client.code) == (504, "upstream_timeout")
    assert (row["attempts"], row["error_code"]) == (1, "upstream_timeout")


@timeless
async def test_a_silent_upstream_is_left_while_there_is_time(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client, _ = await asked(world)
    clock().advance(21.0)
    world.upstream.check(clock().time())
    await settled()
    world.upstreams[1].feed(answer())
    assert (await one_row(world))["attempts"] == 2
    assert client.status == 200


@pytest.mark.parametrize(
    ("refusal", "status", "code", "row_code"),
    [
        (UnknownPool(("p",)), 400, "unknown_pool", "unknown_pool"),
        (NoCapacity(1500), 503, "no_capacity", "no_capacity"),
        (OwnerLimited(1500), 429, "rate_limit_exceeded", "rate_limit_exceeded"),
        (
            refusal_with_event(OwnerGone()), 400, "previous_response_not_found",
            "affinity_owner_unavailable",
        ),
    ],
    ids=["pool", "capacity", "limited", "owner"],
)  # fmt: skip
@timeless
async def test_who_cannot_be_served_is_told_why(
    tmp_path: Path,
    twin: Twin,
    refusal: Exception,
    status: int,
    code: str,
    row_code: str,
) -> None:
    world = World(tmp_path, twin)
    twin.says.append(refusal)
    client = world.client()
    await client.asks()
    row = await one_row(world)
    assert (client.status, client.code, row["error_code"]) == (status, code, row_code)
    assert row.get("resource_id") is None
    assert len(world.decisions) == (1 if status == 400 and "owner" in row_code else 0)


@timeless
async def test_without_more_capacity_the_last_failure_is_passed_on(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    twin.says.append(NoCapacity(1000))
    upstream.feed(error(500, "broken"))
    await one_row(world)
    assert (client.status, client.code) == (500, "broken")


@timeless
@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_not_passed_on_while_its_sibling_is_rate_limited(
    tmp_path: Path, twin: Twin, status: int
) -> None:
    """The client did not choose the key, and can wait for the other one."""
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    twin.says.append(OwnerLimited(1500))
    upstream.feed(error(status, "invalid_api_key"))
    row = await one_row(world)
    assert (client.status, client.code) == (429, "rate_limit_exceeded")
    assert client.head[b"retry-after"] == b"2"
    assert row["outcome"] == "failed"


@timeless
@pytest.mark.parametrize(("attempts", "made"), [(1, 1), (2, 4)])
@pytest.mark.parametrize("code", ["invalid_api_key", "insufficient_quota"])
async def test_dead_keys_leave_attempts_up_to_twice_their_number(
    tmp_path: Path, code: str, attempts: int, made: int
) -> None:
    twin = Twin(*(resource(name, credential="env:KEY_A") for name in "abcdef"))
    world = World(tmp_path, twin, limits=Limits(1000, attempts, REQUEST_S))
    client, _ = await asked(world)
    for number in range(made):
        status = 401 if code == "invalid_api_key" else 429
        world.upstreams[number].feed(error(status, code))
        await settled()
    row = await one_row(world)
    assert (row["attempts"], row["error_code"]) == (made, code)
    assert client.code == code


@timeless
async def test_an_owner_that_goes_between_attempts_is_told(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    twin.says.append(OwnerGone())
    upstream.feed(error(500, "broken"))
    await one_row(world)
    assert client.code == "previous_response_not_found"


@timeless
async def test_before_there_is_a_catalogue_nothing_can_be_served(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, Twin())
    client = world.client()
    await client.asks()
    await one_row(world)
    assert (client.status, client.code) == (503, "no_capacity")


@timeless
async def test_while_redis_is_away_traffic_goes_on(tmp_path: Path, twin: Twin) -> None:
    world = World(tmp_path, twin)
    await world.catalogue.refresh()
    twin.away = True
    client, upstream = await asked(world)
    upstream.feed(answer())
    row = await one_row(world)
    assert (client.status, row["outcome"]) == (200, "completed")
    assert world.decisions[0]["degraded"]
    assert world.journal.unsent_from is not None


@timeless
async def test_redis_may_leave_between_a_decision_and_its_target(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    await world.catalogue.refresh()
    twin.says.append(Decision("a", "session_affinity", "another"))
    twin.away = True
    _, upstream = await asked(world)
    upstream.feed(answer())
    assert (await one_row(world))["resource_id"] == "a"


REASONED = json.dumps(
    {
        "model": "m",
        "input": [
            {"type": "reasoning", "encrypted_content": "gAAAA", "id": "rs_1"},
            {"type": "message", "role": "user", "content": "hi"},
        ],
    }
).encode()


REPLAYING = Limits(100_000, 3, REQUEST_S, replays=True)


@timeless
async def test_reasoning_of_an_account_that_is_gone_is_left_out(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin, limits=REPLAYING)
    twin.says.append(OwnerGone())
    _, upstream = await asked(world, REASONED)
    assert b"gAAAA" not in upstream.sent
    assert b'"content":"hi"' in upstream.sent
    upstream.feed(answer())
    assert (await one_row(world))["outcome"] == "completed"
    assert twin.asked[-1].replayed


@timeless
async def test_reasoning_that_the_upstream_refuses_is_left_out(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin, limits=REPLAYING)
    twin.says.append(Decision("a", "session_affinity", "v3"))
    client, upstream = await asked(world, REASONED)
    upstream.feed(error(400, "invalid_encrypted_content"))
    await settled()
    assert twin.asked[-1].tried == ()  # it can read the rest
    world.upstreams[-1].feed(answer())
    row = await one_row(world)
    assert (client.status, row["attempts"]) == (200, 2)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(REASONED, "invalid_value", id="another error"),
        pytest.param(
            json.dumps({"input": [{"type": "compaction", "encrypted_content": "x"}]})
            .encode(),
            "invalid_encrypted_content",
            id="more than reasoning",
        ),
    ],
)  # fmt: skip
@timeless
async def test_what_cannot_be_replayed_is_the_clients_error(
    tmp_path: Path, twin: Twin, body: bytes, code: str
) -> None:
    world = World(tmp_path, twin, limits=REPLAYING)
    twin.says.append(Decision("a", "session_affinity", "v3"))
    client, upstream = await asked(world, body)
    upstream.feed(error(400, code))
    await one_row(world)
    assert (client.status, client.code, len(world.upstreams)) == (400, code, 1)


@timeless
async def test_a_429_on_every_attempt_is_the_clients(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client, _ = await asked(world)
    for number in range(3):
        wait = b"%d" % (number + 5)
        world.upstreams[number].feed(error(429, None, (b"retry-after", wait)))
        await settled()
    row = await one_row(world)
    # The first of the three may serve the soonest.
    assert (client.status, client.head[b"retry-after"]) == (429, b"5")
    assert (row["attempts"], row["status_code"], row["outcome"]) == (3, 429, "failed")
    kinds = [release.verdict and release.verdict.kind for release in twin.released]
    assert kinds == ["limited"] * 3 + [None]
    assert len({decision["resource_id"] for decision in world.decisions}) == 3


@pytest.mark.parametrize("replays", [True, False])
@timeless
async def test_without_permission_nothing_is_rewritten(
    tmp_path: Path, twin: Twin, replays: bool
) -> None:
    limits = Limits(100_000, 3, REQUEST_S, replays=replays)
    world = World(tmp_path, twin, limits=limits)
    twin.says.append(OwnerGone())
    client = world.client()
    await client.asks(REASONED)
    assert len(world.upstreams) == (1 if replays else 0)
    if replays:
        world.upstreams[0].feed(answer())
    row = await one_row(world)
    expected = "completed" if replays else "failed"
    assert (row["outcome"], len(twin.asked)) == (expected, 2 if replays else 1)
    if not replays:
        assert row["error_code"] == "affinity_owner_unavailable"
        assert client.head[b"x-proxy-reason"] == b"affinity_owner_unavailable"


@timeless
async def test_without_permission_unreadable_reasoning_is_the_clients_error(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    twin.says.append(Decision("a", "session_affinity", "v3"))
    client, upstream = await asked(world, REASONED)
    upstream.feed(error(400, "invalid_encrypted_content"))
    row = await one_row(world)
    assert (client.status, row["error_code"]) == (400, "invalid_encrypted_content")
    assert (row["attempts"], len(world.upstreams)) == (1, 1)
    kinds = [release.verdict and release.verdict.kind for release in twin.released]
    assert kinds == ["neutral", None]


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        pytest.param(b"zstd", zstandard.compress(REASONED), id="packed"),
        pytest.param(b"br", b"nonsense", id="unknown coding"),
        pytest.param(b"gzip", gzip.compress(REASONED)[:-9], id="cut"),
    ],
)
@timeless
async def test_a_packed_body_is_rewritten_if_it_can_be_opened(
    tmp_path: Path, twin: Twin, coding: bytes, body: bytes
) -> None:
    world = World(tmp_path, twin, limits=REPLAYING)
    twin.says.append(OwnerGone())
    client = world.client()
    await client.asks(body, (b"content-encoding", coding))
    if coding == b"zstd":
        assert b'"content":"hi"' in world.upstreams[0].sent
        assert b"content-encoding" not in world.upstreams[0].sent
        world.upstreams[0].feed(answer())
    row = await one_row(world)
    assert row["outcome"] == ("completed" if coding == b"zstd" else "failed")


@timeless
async def test_a_body_that_cannot_be_opened_is_not_rewritten(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin, limits=REPLAYING)
    life = world.in_flight.arrived(Request("POST", b"/v1/responses", []))
    life.request.coding, life.body = b"gzip", b"nonsense"
    life.admit(b"/responses", Hints(account_bound=True), None)
    world.in_flight.admitted(life)
    twin.says.append(OwnerGone())
    assert await world.plane.attempts.run(life, never) is Next.ANSWER
    assert life.problem is not None
    assert life.problem.ledger_code == "affinity_owner_unavailable"


async def never(life: Lifecycle, target: Target) -> Next:
    raise AssertionError("no resource was found")


@timeless
async def test_a_foreign_id_is_answered_as_unknown(tmp_path: Path, twin: Twin) -> None:
    world = World(tmp_path, twin)
    world.table.put(Principal(id="k"))
    twin.says.append(ForeignId(0, known=True))
    client = world.client()
    await client.asks(b'{"previous_response_id":"resp_1"}', KEY)
    row = await one_row(world)
    assert (client.code, row["error_code"]) == (
        "previous_response_not_found",
        "foreign_id",
    )


@timeless
async def test_an_attempt_counts_as_load_while_it_runs(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    _, upstream = await asked(world)
    (life,) = world.in_flight.active.values()
    name = life.record.resource_id or ""
    held = world.offline.local.leases
    assert held[name] == {("gw-1", life.record.id)}
    upstream.feed(error(500))
    await settled()
    assert not held[name]
    world.upstreams[1].feed(answer())
    await one_row(world)


# Aliases with several targets ------------------------------------------------------

FAST = b'{"x":1,"model":"fast"}'
SENT = {"p1": b'\r\n\r\n{"x":1,"model":"m1"}', "p2": b'\r\n\r\n{"x":1,"model":"m2"}'}


async def with_targets(
    root: Path, *priorities: int, attempts: int = 3, limits: Limits | None = None
) -> World:
    """The provider `p1` has the resource a, `p2` has b and c."""
    targets = tuple(
        ModelTarget(provider_id=f"p{n}", upstream_id=f"m{n}", priority=priority)
        for n, priority in enumerate(priorities, start=1)
    )
    alias = Alias(alias="fast", provider_id="p1", upstream_id="m1", targets=targets)
    resources = [
        resource(name, provider_id=provider)
        for name, provider in (("a", "p1"), ("b", "p2"), ("c", "p2"))
    ]
    twin = Twin(*resources, aliases=(alias,))
    limits = limits or Limits(100_000, attempts, REQUEST_S)
    world = World(root, twin, limits=limits)
    await world.catalogue.refresh()
    return world


def decided(world: World) -> list[tuple[str | None, str | None]]:
    """Resources and causes of the decisions that were recorded."""
    return [(d["resource_id"], d["cause"]) for d in world.decisions]


@timeless
async def test_the_next_target_gets_its_own_name_of_the_model(tmp_path: Path) -> None:
    world = await with_targets(tmp_path, 0, 1)
    client, upstream = await asked(world, FAST)
    assert upstream.sent.endswith(SENT["p1"])
    upstream.feed(error(500))
    await settled()
    assert world.upstreams[1].sent.endswith(SENT["p2"])
    world.upstreams[1].feed(answer())
    row = await one_row(world)
    assert (client.status, row["attempts"], row["model"]) == (200, 2, "fast")
    assert (row["upstream_model"], row["pool_id"]) == ("m2", "@p2")
    # p1 has no other key: it is not asked again.
    assert [ask.pool_id for ask in world.twin.asked] == ["@p1", "@p2"]
    assert {ask.turn for ask in world.twin.asked} == {OTHERS}
    assert decided(world)[1][1] == "server_error"


@timeless
async def test_the_other_keys_of_a_target_come_before_the_next_one(
    tmp_path: Path,
) -> None:
    world = await with_targets(tmp_path, 1, 0)
    await asked(world, FAST)
    for upstream in range(2):
        assert world.upstreams[upstream].sent.endswith(SENT["p2"])
        world.upstreams[upstream].feed(error(429))
        await settled()
    assert world.upstreams[2].sent.endswith(SENT["p1"])
    world.upstreams[2].feed(answer())
    row = await one_row(world)
    assert (row["attempts"], row["resource_id"]) == (3, "a")


@timeless
async def test_the_last_attempt_is_for_another_target(tmp_path: Path) -> None:
    world = await with_targets(tmp_path, 1, 0, attempts=2)
    await asked(world, FAST)
    world.upstreams[0].feed(error(429))
    await settled()
    assert world.upstreams[1].sent.endswith(SENT["p1"])
    world.upstreams[1].feed(error(503, "last"))
    row = await one_row(world)
    assert (row["attempts"], row["error_code"]) == (2, "last")


@timeless
async def test_a_target_whose_keys_cool_down_is_passed_over(tmp_path: Path) -> None:
    world = await with_targets(tmp_path, 0, 1)
    world.twin.says.append(refusal_with_event(NoCapacity(1500)))
    client, upstream = await asked(world, FAST)
    assert upstream.sent.endswith(SENT["p2"])
    upstream.feed(answer())
    row = await one_row(world)
    assert (client.status, row["attempts"], row["pool_id"]) == (200, 1, "@p2")
    assert world.twin.asked[1].attempt == 1
    assert world.twin.asked[1].cause == "target_unavailable"


@timeless
async def test_when_all_cool_down_one_of_them_is_tried_all_the_same(
    tmp_path: Path,
) -> None:
    world = await with_targets(tmp_path, 0, 1)
    world.twin.says += [NoCapacity(1500), NoCapacity(0)]
    _, upstream = await asked(world, FAST)
    assert upstream.sent.endswith(SENT["p1"])
    turns = [(ask.pool_id, ask.turn) for ask in world.twin.asked]
    assert turns == [("@p1", OTHERS), ("@p2", OTHERS), ("@p1", "")]
    upstream.feed(answer())
    await one_row(world)


@timeless
async def test_nobody_can_serve_any_target(tmp_path: Path) -> None:
    world = await with_targets(tmp_path, 0, 1)
    world.twin.says += [NoCapacity(ms) for ms in (0, 9000, 0, 4000)]
    client = world.client()
    await client.asks(FAST)
    await one_row(world)
    assert (client.status, client.code) == (503, "no_capacity")
    assert client.head[b"retry-after"] == b"4"


@timeless
async def test_reasoning_is_left_out_after_all_targets_were_asked(
    tmp_path: Path,
) -> None:
    world = await with_targets(tmp_path, 0, 1, limits=REPLAYING)
    world.twin.says += [OwnerGone()] * 2
    body = zstandard.compress(REASONED.replace(b'"m"', b'"fast"'))
    _, upstream = await asked(world, body, (b"content-encoding", b"zstd"))
    assert b"gAAAA" not in upstream.sent
    assert b'"model":"m1"' in upstream.sent.replace(b" ", b"")
    upstream.feed(error(500))
    await settled()
    sent = world.upstreams[1].sent.replace(b" ", b"")
    assert b'"model":"m2"' in sent
    assert b"gAAAA" not in sent
    world.upstreams[1].feed(answer())
    row = await one_row(world)
    assert (row["outcome"], row["upstream_model"]) == ("completed", "m2")


@timeless
async def test_a_row_names_the_target_of_the_last_attempt(tmp_path: Path) -> None:
    world = await with_targets(tmp_path, 0, 1)
    client, upstream = await asked(world, FAST)
    world.twin.says += [NoCapacity(0)] * 4
    upstream.feed(error(500, "broken"))
    row = await one_row(world)
    assert (client.status, client.code) == (500, "broken")
    assert (row["resource_id"], row["pool_id"], row["upstream_model"]) == (
        "a",
        "@p1",
        "m1",
    )


@pytest.mark.parametrize(
    "known", ["in Redis", "in memory", "in SQL"], ids=["redis", "away", "sql"]
)
@timeless
async def test_a_conversation_stays_at_the_target_that_has_it(
    tmp_path: Path, known: str
) -> None:
    world = await with_targets(tmp_path, 0, 1)
    owner = Owner("c", "account-c")
    match known:
        case "in Redis":
            world.twin.local.keep(world.twin.local.ids, digest("resp_1"), owner)
        case "in memory":
            world.twin.away = True
            world.offline.remember({}, {digest("resp_1"): owner})
        case _:
            shown = {"resource_id": "c", "account_id": "account-c"}
            world.owners = {"ids": {"resp_1": shown}, "session": None}
    body = b'{"previous_response_id":"resp_1","model":"fast"}'
    client, upstream = await asked(world, body)
    assert upstream.sent.endswith(b'{"previous_response_id":"resp_1","model":"m2"}')
    assert world.wires.dialled[0][0].host == "c.test"
    upstream.feed(error(500, "broken"))
    await settled()
    row = await one_row(world)
    # Nobody else has it, so the client gets the error of its account.
    assert (client.status, client.code, row["attempts"]) == (500, "broken", 1)


@timeless
async def test_a_session_stays_where_it_was_last(tmp_path: Path) -> None:
    world = await with_targets(tmp_path, 0, 1)
    body = b'{"prompt_cache_key":"s","model":"fast"}'
    _, upstream = await asked(world, body)
    upstream.feed(error(500))
    await settled()
    world.upstreams[1].feed(answer())
    await one_row(world)
    # p1 works again, but the session has moved.
    home = world.requests[0]["resource_id"]
    client, upstream = await asked(world, body)
    upstream.feed(answer())
    await settled()
    assert client.head[b"x-proxy-resource-id"].decode() == home
    assert client.head[b"x-proxy-reason"] == b"session_affinity"


@timeless
async def test_nobody_has_its_conversation(tmp_path: Path) -> None:
    world = await with_targets(tmp_path, 0, 1)
    gone = Owner("x", "account-x")
    world.twin.local.keep(world.twin.local.ids, digest("resp_1"), gone)
    client = world.client()
    await client.asks(b'{"previous_response_id":"resp_1","model":"fast"}')
    row = await one_row(world)
    assert (client.status, client.code) == (400, "previous_response_not_found")
    assert row["error_code"] == "affinity_owner_unavailable"
    assert [ask.pool_id for ask in world.twin.asked] == ["@p1", "@p2"]


@timeless
async def test_without_an_alias_nothing_more_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await with_targets(tmp_path, 0)  # an alias with one target

    async def kept(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(world.twin, "kept", kept)
    for model in ("fast", "m"):
        body = b'{"prompt_cache_key":"s","model":"%b"}' % model.encode()
        _, upstream = await asked(world, body)
        upstream.feed(answer())
        await settled()
    assert [ask.turn for ask in world.twin.asked] == ["", ""]
    world.is_at_rest()
