"""One request from its bytes to its row: the client gets one answer, the ledger one
event, and nothing is held afterwards."""

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
import zstandard

from libs.common.contracts.events import Alias
from libs.common.headers import Header
from libs.common.proxy_keys import Principal, Reached
from libs.common.routing.types import (
    Decision,
    NoCapacity,
    OwnerGone,
    OwnerLimited,
    UnknownPool,
    digest,
)
from services.gateway.proxy.handler import CLIENT_GRACE_S, FAILURE_S, Limits
from services.gateway.proxy.handler import with_whole_retry_after as whole
from services.gateway.upstream.errors import NoFreeConnection, NotSent
from tests.support.memory.clock import clock, settled, timeless
from tests.support.memory.plane import REQUEST_S, SECRET, Client, World, answer, error
from tests.support.memory.transports import Wire
from tests.support.memory.twin import Twin, refusal_with_event, resource

KEY: Header = (b"authorization", b"Bearer " + SECRET.encode())
CREATED = (
    b'event: response.created\ndata: {"type":"response.created",'
    b'"response":{"id":"resp_1","object":"response"}}\n\n'
)
COMPLETED = (
    b'event: response.completed\ndata: {"type":"response.completed",'
    b'"response":{"id":"resp_1","object":"response","status":"completed",'
    b'"usage":{"input_tokens":1,"output_tokens":2,"total_tokens":3}}}\n\n'
)


@pytest.fixture
def twin() -> Twin:
    return Twin(resource("a"), resource("b"), resource("c"))


STREAMING = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


async def asked(world: World, *args: Any, **more: Any) -> tuple[Client, Wire]:
    """A request that reached an upstream."""
    client = world.client()
    await client.asks(*args, **more)
    return client, world.upstreams[-1]


async def one_row(world: World) -> dict[str, Any]:
    await settled()
    world.is_at_rest()
    (row,) = world.requests
    return row


# The way through ---------------------------------------------------------------


@timeless
async def test_a_request_goes_up_with_the_resources_key_and_nothing_of_the_client(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(
        world,
        b'{"model":"m"}',
        (b"authorization", b"Bearer theirs"),
        (b"cookie", b"a=b"),
        (b"x-proxy-session-id", b"s"),
        (b"x-mine", b"\xff"),
        line=b"POST /v1/responses?x=y",
    )
    (exchange,) = world.plane.active.values()
    name = (exchange.record.resource_id or "").encode()
    assert upstream.sent == (
        b"POST /v1/responses?x=y HTTP/1.1\r\nhost: %b.test\r\nx-mine: \xff\r\n"
        b"authorization: Bearer sk-%b\r\ncontent-length: 13\r\n\r\n"
        b'{"model":"m"}' % (name, name)
    )
    assert client.wire.sent == b""


@timeless
async def test_an_answer_comes_back_and_the_books_are_closed(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin, capture=1000)
    body = b'{"model":"m","metadata":{"session_id":"s"}}'
    client, upstream = await asked(world, body)
    upstream.feed(answer())
    row = await one_row(world)
    assert (client.status, client.head[b"x-proxy-attempts"]) == (200, b"1")
    assert client.head[b"x-proxy-request-id"].decode() == row["id"]
    assert client.head[b"x-proxy-resource-id"].decode() == row["resource_id"]
    assert (row["outcome"], row["status_code"], row["response_id"]) == (
        "completed",
        200,
        "resp_1",
    )
    assert (row["request_bytes"], row["attempts"]) == (len(body), 1)
    (release,) = twin.released
    assert release.learned == (digest("resp_1"),)
    assert release.verdict is not None
    assert release.verdict.kind == "ok"
    assert bool(release.session)
    assert world.decisions[0]["resource_id"] == row["resource_id"]


@pytest.mark.parametrize(
    ("sent", "outcome", "verdict"),
    [
        pytest.param(CREATED + COMPLETED, "completed", "ok", id="completed"),
        pytest.param(
            CREATED + COMPLETED.replace(b"completed", b"failed"), "failed", "neutral",
            id="failed",
        ),
        pytest.param(CREATED, "failed", "fault", id="cut"),
    ],
)  # fmt: skip
@timeless
async def test_a_streams_end_is_its_outcome(
    tmp_path: Path, twin: Twin, sent: bytes, outcome: str, verdict: str
) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    upstream.feed(STREAMING + sent)
    upstream.hangs_up()
    row = await one_row(world)
    assert (row["outcome"], row["transport"]) == (outcome, "sse")
    assert twin.released[-1].verdict is not None
    assert twin.released[-1].verdict.kind == verdict
    assert client.wire.sent.endswith(b"0\r\n\r\n")
    assert (b"response.failed" in client.body) is (outcome == "failed")


@timeless
async def test_a_part_of_a_json_answer_breaks_the_clients_connection(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    upstream.feed(answer()[:-1])
    upstream.hangs_up()
    row = await one_row(world)
    assert client.wire.aborted
    assert (row["outcome"], row["error_code"]) == ("failed", "server_error")


@timeless
async def test_head_has_no_body_and_reaches_the_ledger(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client = world.client()
    client.wire.feed(b"HEAD /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
    await settled()
    upstream = world.upstreams[0]
    assert b"content-length" not in upstream.sent
    upstream.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
    assert (await one_row(world))["status_code"] == 200
    assert (client.status, client.body) == (200, b"")


@timeless
async def test_an_answer_names_the_account_of_its_key(tmp_path: Path) -> None:
    twin = Twin(resource("a", account_id="a"))
    world = World(tmp_path, twin)
    for _ in range(2):
        _, upstream = await asked(world)
        upstream.feed(answer(b"{}", (b"openai-organization", b"org-1")))
        await settled()
    assert twin.named == [("a", "org-1")]


# Failover ----------------------------------------------------------------------


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
async def test_a_429_that_is_passed_on_says_when_to_come_again(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin, limits=Limits(1000, 1, REQUEST_S, pause_ms=4000))
    client, upstream = await asked(world)
    upstream.feed(error(429))
    await one_row(world)
    assert (client.status, client.head[b"retry-after"]) == (429, b"4")


@timeless
async def test_a_packed_refusal_is_read_and_passed_on_packed(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin, limits=Limits(1000, 1, REQUEST_S))
    client, upstream = await asked(world)
    packed = zlib.compress(b'{"error":{"code":"odd","message":"x"}}')
    upstream.feed(answer(packed, (b"content-encoding", b"deflate"), status=500))
    assert (await one_row(world))["error_code"] == "odd"
    assert client.body == packed


@timeless
async def test_a_refusal_that_never_ends_is_not_waited_for(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin, limits=Limits(1000, 1, REQUEST_S))
    began = clock().time()
    client, upstream = await asked(world)
    upstream.feed(b"HTTP/1.1 500 X\r\ncontent-length: 9\r\n\r\nhalf")
    while not client.wire.sent:
        await settled()
        clock().advance(0.5)
    assert clock().time() - began < FAILURE_S + 2
    assert client.code == "upstream_unreachable"
    assert upstream.aborted


@timeless
async def test_an_ordinary_error_is_the_clients(tmp_path: Path, twin: Twin) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    upstream.feed(error(400, "invalid_value"))
    row = await one_row(world)
    assert (client.status, len(world.upstreams)) == (400, 1)
    assert (row["outcome"], row["error_code"]) == ("failed", "invalid_value")
    assert twin.released[-1].verdict is not None
    assert twin.released[-1].verdict.kind == "neutral"


@timeless
async def test_a_connection_closed_for_idleness_is_nobodys_fault(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, Twin(resource("a")))
    _, upstream = await asked(world)
    upstream.feed(answer())
    await settled()
    client, _ = await asked(world)
    upstream.hangs_up()
    await settled()
    world.upstreams[-1].feed(answer())
    await settled()
    assert (client.status, len(world.upstreams)) == (200, 2)
    assert [row["attempts"] for row in world.requests] == [1, 1]


@timeless
async def test_a_key_that_is_not_here_is_passed_over(tmp_path: Path) -> None:
    nowhere = resource("a", credential="env:NONE")
    world = World(tmp_path, Twin(nowhere))
    client = world.client()
    await client.asks()
    row = await one_row(world)
    assert client.code == "upstream_unreachable"
    assert "cannot resolve its key" in row["error_message"]
    assert world.upstreams == []


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


# Refusals ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "status", "code"),
    [
        (b"TRACE /v1/responses", 405, "method_not_allowed"),
        (b"GET /v1/../admin", 404, "unknown_route"),
    ],
)
@timeless
async def test_what_is_not_forwarded_is_in_no_books(
    tmp_path: Path, twin: Twin, line: bytes, status: int, code: str
) -> None:
    world = World(tmp_path, twin)
    client = world.client()
    await client.asks(b"", line=line)
    assert (client.status, client.code) == (status, code)
    assert (world.requests, world.upstreams) == ([], [])


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
async def test_a_fault_of_ours_is_said_and_in_the_books(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    twin.says.append(RuntimeError("ours"))
    client = world.client()
    await client.asks()
    row = await one_row(world)
    assert (client.status, client.code) == (500, "internal_error")
    assert (row["outcome"], row["error_code"]) == ("failed", "internal_error")


@timeless
async def test_while_redis_is_away_traffic_goes_on(tmp_path: Path, twin: Twin) -> None:
    world = World(tmp_path, twin)
    await world.directory.refresh()
    twin.away = True
    client, upstream = await asked(world)
    upstream.feed(answer())
    row = await one_row(world)
    assert (client.status, row["outcome"]) == (200, "completed")
    assert world.decisions[0]["degraded"]
    assert world.journal.unsent_from is not None


# Proxy keys --------------------------------------------------------------------


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


@timeless
async def test_a_key_over_its_limit_is_refused_and_in_the_books(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    world.table.put(Principal(id="k", requests_per_minute=1))
    world.table.reached = Reached("requests", 1000)
    client = world.client()
    await client.asks(b"{}", KEY)
    row = await one_row(world)
    assert (client.status, row["proxy_key_id"]) == (429, "k")
    assert world.upstreams == []


@timeless
async def test_a_key_that_is_unknown_is_in_no_books(tmp_path: Path, twin: Twin) -> None:
    world = World(tmp_path, twin)
    client = world.client()
    await client.asks(b"{}", KEY)
    await clock_passes(client)
    assert (client.status, client.code) == (401, "invalid_proxy_key")
    assert world.requests == []


async def clock_passes(client: Client) -> None:
    while not client.wire.sent:
        clock().advance(0.1)
        await settled()


# Model aliases -----------------------------------------------------------------

ALIAS = Alias(alias="fast", provider_id="local", upstream_id="m-8b")


def aliased() -> Twin:
    local = resource("a", provider_id="local", pool_id="edge")
    return Twin(local, resource("b"), aliases=(ALIAS,))


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param(b'{"model":"fast","x":1}', [], id="plain"),
        pytest.param(
            zstandard.compress(b'{"model":"fast","x":1}'),
            [(b"content-encoding", b"zstd")],
            id="packed",
        ),
    ],
)
@timeless
async def test_an_alias_leads_to_its_provider_under_the_providers_name(
    tmp_path: Path, body: bytes, headers: list[Header]
) -> None:
    world = World(tmp_path, aliased())
    await world.directory.refresh()
    _, upstream = await asked(world, body, *headers)
    assert upstream.sent.endswith(b'\r\n\r\n{"model":"m-8b","x":1}')
    assert b"content-encoding" not in upstream.sent
    upstream.feed(answer())
    row = await one_row(world)
    assert (row["model"], row["upstream_model"], row["resource_id"]) == (
        "fast",
        "m-8b",
        "a",
    )


@timeless
async def test_an_alias_outside_the_keys_pools_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path, aliased())
    await world.directory.refresh()
    world.table.put(Principal(id="k", pools=("other",)))
    client = world.client()
    await client.asks(b'{"model":"fast"}', KEY)
    await clock_passes(client)
    assert client.code == "model_not_allowed"


# Replays -----------------------------------------------------------------------

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


# Leaving -----------------------------------------------------------------------


@pytest.mark.parametrize("fed", [b"", STREAMING + CREATED], ids=["before", "within"])
@timeless
async def test_a_client_that_leaves_ends_its_request_upstream(
    tmp_path: Path, twin: Twin, fed: bytes
) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    upstream.feed(fed)
    await settled()
    client.wire.hangs_up()
    row = await one_row(world)
    assert row["outcome"] == "cancelled"
    assert upstream.aborted
    assert world.upstream.open == 0


@timeless
async def test_a_client_that_leaves_after_the_terminal_event_has_completed(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    upstream.feed(STREAMING + CREATED + COMPLETED)
    await settled()
    client.wire.hangs_up()
    assert (await one_row(world))["outcome"] == "completed"
    assert not upstream.aborted  # its end may still come


@timeless
async def test_a_client_that_does_not_read_does_not_hold_its_lease_for_ever(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    client.connection.pause_writing()
    upstream.feed(STREAMING + CREATED)
    await settled()
    world.plane.check(clock().time() + REQUEST_S + CLIENT_GRACE_S)
    await settled()
    assert world.requests == []
    world.plane.check(clock().time() + REQUEST_S + CLIENT_GRACE_S + 0.1)
    row = await one_row(world)
    assert (row["outcome"], row["error_code"]) == ("failed", "client_stalled")
    assert client.wire.aborted
    (release,) = twin.released
    assert release.verdict is not None
    assert release.verdict.kind == "neutral"


@pytest.mark.parametrize(
    ("fed", "ends"),
    [
        pytest.param(b"", b'"code":"gateway_restarts"}}', id="before the answer"),
        pytest.param(STREAMING + CREATED, b"0\r\n\r\n", id="in a stream"),
        pytest.param(answer()[:-1], b"", id="in JSON"),
    ],
)
@timeless
async def test_a_restart_is_told_to_whoever_can_be_told(
    tmp_path: Path, twin: Twin, fed: bytes, ends: bytes
) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    upstream.feed(fed)
    await settled()
    world.plane.interrupt()
    row = await one_row(world)
    assert row["outcome"] == "interrupted"
    assert client.wire.sent.endswith(ends)
    assert client.wire.aborted is (ends == b"")


@timeless
async def test_a_task_that_others_cancel_is_cancelled(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client, _ = await asked(world)
    task = client.connection.task
    assert task is not None
    task.cancel()
    row = await one_row(world)
    assert task.cancelled()
    assert row["outcome"] == "cancelled"


@timeless
async def test_redis_may_leave_between_a_decision_and_its_target(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    await world.directory.refresh()
    twin.says.append(Decision("a", "session_affinity", "another"))
    twin.away = True
    _, upstream = await asked(world)
    upstream.feed(answer())
    assert (await one_row(world))["resource_id"] == "a"


# Retry-After -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([(b"retry-after", b"7")], b"7"),
        ([(b"retry-after", b"0")], b"1"),
        ([(b"retry-after", b"1.2")], b"2"),
        ([(b"retry-after-ms", b"1500")], b"2"),
        ([], b"5"),
        ([(b"retry-after", b"soon")], b"5"),
    ],
)
def test_a_429_names_whole_seconds(headers: list[Header], seconds: bytes) -> None:
    found = [v for n, v in whole(headers, 5000) if n == b"retry-after"]
    assert found == [seconds]
