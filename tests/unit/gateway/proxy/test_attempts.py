"""The retry loop: a request goes elsewhere while that helps, and its client gets
what says most."""

import gzip
import json
from pathlib import Path

import pytest
import zstandard

from libs.common.bodies.hints import Hints
from libs.common.proxy_keys import Principal
from libs.common.routing.types import (
    Decision,
    ForeignId,
    NoCapacity,
    OwnerGone,
    OwnerLimited,
    UnknownPool,
)
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.proxy.services import Limits
from services.gateway.proxy.steps import Next
from services.gateway.routing.catalogue import Target
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
from tests.support.memory.twin import Twin, refusal_with_event


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
    assert (client.status, client.head[b"retry-after"]) == (429, b"7")
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
