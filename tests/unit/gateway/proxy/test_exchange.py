"""A request from its bytes to its row: whatever becomes of it, the client has one
answer, the ledger one event, and nothing is held."""

import asyncio
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import zstandard

from libs.common.budgets import Budget
from libs.common.contracts.catalogue import Alias
from libs.common.contracts.prices import Price
from libs.common.headers import Header
from libs.common.proxy_keys import Principal
from libs.common.routing.budgets import LEFT
from libs.common.routing.types import (
    Ask,
    BudgetSpent,
    Decision,
    KeyLimited,
    SpendUnknown,
    digest,
)
from services.gateway.proxy.handler import CLIENT_GRACE_S
from services.gateway.proxy.services import Limits
from tests.support.memory.clock import clock, settled, timeless
from tests.support.memory.plane import REQUEST_S, Client, World, answer, error
from tests.support.memory.requests import (
    COMPLETED,
    CREATED,
    KEY,
    STREAMING,
    asked,
    clock_passes,
    one_row,
)
from tests.support.memory.twin import Twin, resource


def later(first: Callable[[], object]) -> Callable[[Callable[[], None]], bool]:
    """Calls to Redis are written in the next turn, in which `first` happens before."""

    def when_sent(then: Callable[[], None]) -> bool:
        asyncio.get_running_loop().call_soon(first)
        asyncio.get_running_loop().call_soon(then)
        return True

    return when_sent


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
    (exchange,) = world.in_flight.active.values()
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


@pytest.mark.parametrize("waits", [False, True])
@timeless
async def test_the_end_of_an_answer_waits_until_its_release_is_written(
    tmp_path: Path, twin: Twin, *, waits: bool
) -> None:
    """Its client may go on at another gateway at once."""
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    ended: list[bool] = []

    def has_ended() -> bool:
        return client.wire.sent.endswith(b"}")

    def when_sent(then: Callable[[], None]) -> bool:
        # The turn in which Redis gets what was not written.
        asyncio.get_running_loop().call_soon(lambda: ended.append(has_ended()))
        if waits:
            asyncio.get_running_loop().call_soon(then)
        return waits

    world.when_sent = when_sent
    upstream.feed(answer())
    await settled()
    assert (ended, has_ended()) == ([not waits], True)


@timeless
async def test_a_gateway_that_stops_meanwhile_still_ends_the_answer(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    world.when_sent = later(world.plane.interrupt)
    upstream.feed(answer())
    row = await one_row(world)
    assert row["outcome"] == "completed"
    assert client.wire.sent.endswith(b"}")
    await settled()
    world.when_sent = lambda _: False
    # Its connection serves the next request, as if nothing had happened.
    await client.asks()
    world.upstreams[-1].feed(answer())
    await settled()
    assert client.wire.sent.count(b"HTTP/1.1 200 OK") == 2


@timeless
async def test_a_request_that_came_behind_one_that_is_stopped_meanwhile_is_served(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client, _ = await asked(world)
    await client.asks()  # waits for the first one

    def stops(then: Callable[[], None]) -> bool:
        def at_once() -> None:
            world.plane.interrupt()
            then()  # before the task learns of it

        asyncio.get_running_loop().call_soon(at_once)
        return True

    world.when_sent = stops
    world.upstreams[-1].feed(answer())
    await settled()
    world.when_sent = lambda _: False
    assert client.wire.sent.count(b"HTTP/1.1 200 OK") == 1
    world.upstreams[-1].feed(answer())
    await settled()
    assert client.wire.sent.count(b"HTTP/1.1 200 OK") == 2


@timeless
async def test_a_client_that_leaves_meanwhile_changes_nothing(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    world.when_sent = later(client.wire.hangs_up)
    upstream.feed(answer())
    row = await one_row(world)
    await settled()
    assert row["outcome"] == "completed"
    assert not client.wire.sent
    assert not world.plane.interrupt()  # nothing is under way


@timeless
async def test_pipelined_requests_are_served_when_the_release_is_written(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client, _ = await asked(world)
    await client.asks()
    world.when_sent = later(lambda: None)
    for count in (1, 2):
        world.upstreams[-1].feed(answer())
        await settled()
        assert client.wire.sent.count(b"HTTP/1.1 200 OK") == count


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


# Failover ----------------------------------------------------------------------


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
    # It is an attempt of its own, and costs no verdict.
    assert [row["attempts"] for row in world.requests] == [1, 2]
    assert client.head[b"x-proxy-attempts"] == b"2"
    _, first, second = world.decisions
    assert (first["cause"], second["cause"]) == (None, "stale_connection")
    assert first["resource_id"] == second["resource_id"] == "a"
    kinds = [r.verdict and r.verdict.kind for r in world.twin.released]
    assert kinds == ["ok", "neutral", "ok"]


@timeless
async def test_a_stale_connection_takes_no_attempt_away(tmp_path: Path) -> None:
    limits = Limits(100_000, 1, 60.0)
    world = World(tmp_path, Twin(resource("a")), limits=limits)
    _, upstream = await asked(world)
    upstream.feed(answer())
    await settled()
    client, _ = await asked(world)
    upstream.hangs_up()
    await settled()
    world.upstreams[-1].hangs_up()  # a new connection: this one counts
    await settled()
    assert (client.status, client.code) == (502, "upstream_unreachable")
    assert world.requests[-1]["attempts"] == 2


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"POST /v1/responses", 200),
        (b"GET /v1/models", 200),
        (b"POST /v1/conversations", 502),
        (b"POST /v1/files", 502),
    ],
)
@timeless
async def test_a_reset_after_the_request_was_sent(
    tmp_path: Path, line: bytes, status: int
) -> None:
    world = World(tmp_path, Twin(resource("a"), resource("b")))
    client = world.client()
    await client.asks(b"{}", line=line)
    world.upstreams[0].hangs_up()
    await settled()
    if status == 200:
        world.upstreams[1].feed(answer())
        await settled()
    assert client.status == status
    assert len(world.upstreams) == (2 if status == 200 else 1)


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


JSON_BODY = (
    b'{"id":"resp_1","object":"response",'
    b'"usage":{"input_tokens":1,"output_tokens":2,"total_tokens":3}}'
)

# Proxy keys --------------------------------------------------------------------


@timeless
async def test_a_key_over_its_limit_is_refused_and_in_the_books(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    world.table.put(Principal(id="k", requests_per_minute=1))
    twin.says.append(KeyLimited("requests", 1000))
    client = world.client()
    await client.asks(b"{}", KEY)
    row = await one_row(world)
    assert (client.status, row["proxy_key_id"]) == (429, "k")
    assert world.upstreams == []


HOLDS = Budget("key:k", "ci", tokens=100, window="day", reserve=True)


@timeless
async def test_a_client_sees_the_limits_of_its_key_not_the_upstreams(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    world.table.put(Principal(id="k", requests_per_minute=9))
    twin.says.append(Decision("a", "panic", "v1", left=LEFT[0].pack(1, 0)))
    client, upstream = await asked(world, b'{"model":"m"}', KEY)
    upstream.feed(answer(JSON_BODY, (b"x-ratelimit-remaining-tokens", b"12345")))
    await one_row(world)
    assert client.head[b"x-ratelimit-limit-requests"] == b"9"
    assert client.head[b"x-ratelimit-remaining-requests"] == b"8"
    assert b"x-ratelimit-remaining-tokens" not in client.head


@timeless
async def test_a_spent_budget_is_the_end_of_it(tmp_path: Path, twin: Twin) -> None:
    world = World(tmp_path, twin)
    world.table.put(Principal(id="k", budgets=(HOLDS,)))
    twin.says.append(BudgetSpent("key:k", "tokens"))
    client = world.client()
    await client.asks(b'{"max_output_tokens":5}', KEY)
    row = await one_row(world)
    assert (client.status, client.code) == (429, "insufficient_quota")
    assert b"retry-after" not in client.head
    assert row["error_code"] == "insufficient_quota"
    # Nothing was admitted, so nothing is counted.
    assert twin.released[-1].quota is None


@timeless
async def test_a_budget_that_reserves_needs_a_limit(tmp_path: Path, twin: Twin) -> None:
    world = World(tmp_path, twin)
    world.table.put(Principal(id="k", budgets=(HOLDS,)))
    client = world.client()
    await client.asks(b"{}", KEY)
    await one_row(world)
    assert (client.status, client.code) == (400, "max_output_tokens_required")


@timeless
async def test_a_request_is_asked_for_once_and_counted_at_its_end(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    world.table.put(Principal(id="k", budgets=(HOLDS,)))
    body = b'{"model":"m","max_output_tokens":5}'
    _, upstream = await asked(world, body, KEY)
    upstream.feed(answer(b"{}", status=500))
    await settled()
    world.upstreams[-1].feed(answer(JSON_BODY))
    await one_row(world)
    first, second = twin.asked
    assert first.quota is not None
    assert (first.may_use, second.quota) == (str(len(body) + 5), None)
    ended = twin.released[-1]
    assert (ended.tokens, ended.quota) == (3, first.quota)


@timeless
async def test_without_redis_a_budget_that_reserves_is_closed(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    await world.catalogue.refresh()
    world.table.put(Principal(id="k", budgets=(HOLDS,)))
    twin.away = True
    client = world.client()
    await client.asks(b'{"max_output_tokens":5}', KEY)
    await one_row(world)
    assert (client.status, client.code) == (503, "not_ready")


@timeless
async def test_a_spend_that_stays_unknown_is_left_to_this_gateway(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    budget = Budget("key:k", tokens=100, window="day")
    world.table.put(Principal(id="k", budgets=(budget,)))
    asks: list[str] = []

    async def acquire(ask: Ask) -> Decision:
        asks.append(ask.may_use)
        if not ask.may_use.startswith("-"):
            raise SpendUnknown("key:k")
        return Decision("a", "panic", "v1")

    twin.acquire = acquire  # type: ignore[method-assign]
    client = world.client()
    await client.asks(b"{}", KEY)
    while not world.upstreams:
        clock().advance(0.5)
        await settled()
    world.upstreams[-1].feed(answer(JSON_BODY))
    await one_row(world)
    assert client.status == 200
    assert (set(asks[:-1]), asks[-1]) == ({"0"}, "-0")


@timeless
async def test_a_key_that_is_unknown_is_in_no_books(tmp_path: Path, twin: Twin) -> None:
    world = World(tmp_path, twin)
    client = world.client()
    await client.asks(b"{}", KEY)
    await clock_passes(client)
    assert (client.status, client.code) == (401, "invalid_proxy_key")
    assert world.requests == []


# Prices ------------------------------------------------------------------------

PRICED = (Price("m-1", datetime(2020, 1, 1, tzinfo=UTC), 2.0, 1.0, 10.0),)
USAGE = b'"usage":{"input_tokens":10,"output_tokens":3,"total_tokens":13}}'
WHOLE = b'{"id":"resp_1","object":"response","model":"m-1",' + USAGE


@pytest.mark.parametrize(
    ("body", "cost"),
    [
        pytest.param(WHOLE, b"0.000050000", id="known"),
        pytest.param(WHOLE.replace(b"m-1", b"m-2"), None, id="without a price"),
        pytest.param(b'{"id":"resp_1","model":"m-1"}', None, id="without usage"),
    ],
)
@timeless
async def test_an_answer_that_comes_whole_names_its_cost(
    tmp_path: Path, twin: Twin, body: bytes, cost: bytes | None
) -> None:
    world = World(tmp_path, twin)
    twin.prices = PRICED
    await world.refreshed()
    client, upstream = await asked(world)
    upstream.feed(answer(body))
    await settled()
    assert client.body == body
    assert client.head.get(b"x-proxy-cost-usd") == cost
    assert client.head[b"x-proxy-attempts"] == b"1"


@timeless
async def test_no_byte_waits_for_the_cost(tmp_path: Path, twin: Twin) -> None:
    world = World(tmp_path, twin)
    twin.prices = PRICED
    await world.refreshed()
    client, upstream = await asked(world)
    whole = answer(WHOLE)
    upstream.feed(whole[:-1])
    await settled()
    assert client.body == WHOLE[:-1]
    upstream.feed(whole[-1:])
    await settled()
    assert client.body == WHOLE
    assert b"x-proxy-cost-usd" not in client.head


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
    await world.catalogue.refresh()
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
    await world.catalogue.refresh()
    world.table.put(Principal(id="k", pools=("other",)))
    client = world.client()
    await client.asks(b'{"model":"fast"}', KEY)
    await clock_passes(client)
    assert client.code == "model_not_allowed"


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


# Leaving, at every await -------------------------------------------------------


LARGE = b'{"model":"m","input":"' + b"x" * 60_000 + b'"}'
JSON_HALF = answer()[:-1]
UNREAD = b"HTTP/1.1 500 X\r\ncontent-length: 9\r\n\r\nhalf"
BIG_END = COMPLETED.replace(b'"usage"', b'"text":"' + b"x" * 300_000 + b'","usage"')


async def stands(world: World, monkeypatch: pytest.MonkeyPatch, place: str) -> Client:
    """A request that waits at a place of its way."""
    client = world.client()
    never = asyncio.get_running_loop().create_future

    async def waits(*_: Any, **__: Any) -> Any:
        await never()

    if place == "the proxy key":
        monkeypatch.setattr(world.access, "enter", waits)
        await client.asks(b"{}", KEY)
    elif place == "the body":
        monkeypatch.setattr(asyncio.Lock, "acquire", waits)
        await client.asks(LARGE)
    elif place == "the decision":
        monkeypatch.setattr(world.twin, "acquire", waits)
        await client.asks()
    elif place == "the target":
        monkeypatch.setattr(world.selector, "find", waits)
        await client.asks()
    elif place == "the dial":
        monkeypatch.setattr(world.wires, "dial", waits)
        await client.asks()
    else:
        await client.asks()
        world.upstreams[-1].feed(*FED[place])
        await settled()
    return client


FED = {
    "the head": [],
    "an error's body": [UNREAD],
    "a JSON answer's rest": [JSON_HALF],
    "the first event": [STREAMING],
    "a stream's next event": [STREAMING + CREATED],
    "a large event's reading": [STREAMING + CREATED + BIG_END[:200_000]],
    "a stream's rest": [STREAMING + CREATED + COMPLETED],
}
REFUSABLE = ["the proxy key", "the body"]  # in no ledger yet
OPEN = ["the decision", "the target", "the dial", *list(FED)]


def all_closed(world: World) -> bool:
    return all(wire.is_closing() for wire in world.upstreams)


@pytest.mark.interpreted
@pytest.mark.parametrize("place", [*REFUSABLE, *OPEN])
@timeless
async def test_a_client_may_leave_at_any_time(
    tmp_path: Path, twin: Twin, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    world = World(tmp_path, twin)
    client = await stands(world, monkeypatch, place)
    assert not client.wire.aborted
    client.wire.hangs_up()
    await settled()
    monkeypatch.undo()
    world.is_at_rest()
    rows = world.requests
    assert len(rows) == (0 if place in REFUSABLE else 1)
    assert client.connection.task is None
    ends = "completed" if place == "a stream's rest" else "cancelled"
    assert [row["outcome"] for row in rows] == [ends] * len(rows)
    if place == "a stream's rest":
        # Its end may still come; then the connection serves the next request.
        world.upstreams[0].feed(b"\n\n")
        world.upstreams[0].hangs_up()
    assert all_closed(world)
    assert len(twin.released) == len(rows)
    assert not world.plane.interrupt()


@pytest.mark.interpreted
@pytest.mark.parametrize("place", [*REFUSABLE, *OPEN])
@timeless
async def test_a_gateway_may_stop_at_any_time(
    tmp_path: Path, twin: Twin, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    world = World(tmp_path, twin)
    client = await stands(world, monkeypatch, place)
    assert world.plane.interrupt()
    await settled()
    monkeypatch.undo()
    world.is_at_rest()
    rows = world.requests
    assert len(rows) == (0 if place in REFUSABLE else 1)
    ends = "completed" if place == "a stream's rest" else "interrupted"
    assert [row["outcome"] for row in rows] == [ends] * len(rows)
    if place == "a JSON answer's rest":
        assert client.wire.aborted  # a part must not pass for the whole
    elif place in FED and FED[place][:1] and place != "an error's body":
        assert client.wire.sent.endswith(b"0\r\n\r\n")
    else:
        assert (client.status, client.code) == (503, "gateway_restarts")
    assert client.wire.aborted is (place == "a JSON answer's rest")
    if place != "a stream's rest":
        assert all_closed(world)
    kinds = [release.verdict and release.verdict.kind for release in twin.released]
    assert kinds == (["ok"] if ends == "completed" else ["neutral"] * len(rows))
    assert not world.plane.interrupt()


@timeless
async def test_nothing_follows_an_answer_that_was_interrupted(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    upstream.feed(STREAMING + CREATED)
    await settled()
    world.plane.interrupt()
    upstream.feed(CREATED)  # in the same turn of the loop
    await settled()
    assert upstream.aborted
    assert client.wire.sent.endswith(b"0\r\n\r\n")
    assert client.body.count(b"event: response.failed") == 1


@timeless
async def test_a_client_that_leaves_gives_its_upstream_back_when_the_end_comes(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    chunked = STREAMING.replace(b"\r\n\r\n", b"\r\ntransfer-encoding: chunked\r\n\r\n")
    client, upstream = await asked(world)
    data = CREATED + COMPLETED
    upstream.feed(chunked + b"%x\r\n%b\r\n" % (len(data), data))
    await settled()
    client.wire.hangs_up()
    await settled()
    upstream.feed(b"0\r\n\r\n")
    await settled()
    assert not upstream.is_closing()
    assert world.upstream.open == 1
    await one_row(world)


@pytest.mark.parametrize("how", ["leaves", "interrupt"])
@pytest.mark.parametrize("fed", [answer(), STREAMING + CREATED + COMPLETED])
@timeless
async def test_an_answer_that_is_known_is_settled_as_it_is(
    tmp_path: Path, twin: Twin, how: str, fed: bytes
) -> None:
    """Whatever happens in the turn of the loop between its last bytes and its
    settlement."""
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    upstream.feed(fed[:-20])
    await settled()
    upstream.feed(fed[-20:])
    if how == "leaves":
        client.wire.hangs_up()
    else:
        world.plane.interrupt()
    row = await one_row(world)
    assert (row["outcome"], row["status_code"]) == ("completed", 200)
    assert row.get("error_code") is None
    (release,) = twin.released
    assert release.verdict is not None
    assert release.verdict.kind == "ok"
    if how == "interrupt":
        assert client.status == 200
        assert not client.wire.aborted


@timeless
async def test_an_upstream_that_breaks_off_behind_its_last_event_is_not_to_blame(
    tmp_path: Path, twin: Twin
) -> None:
    """As it does when both come with one read."""
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    upstream.feed(STREAMING.replace(b"\r\n\r\n", b"\r\ncontent-length: 9999\r\n\r\n"))
    await settled()
    upstream.feed(CREATED + COMPLETED)
    upstream.hangs_up()
    row = await one_row(world)
    assert row["outcome"] == "completed"
    assert twin.released[0].verdict is not None
    assert twin.released[0].verdict.kind == "ok"
    assert b"response.failed" not in client.body


@pytest.mark.interpreted
@timeless
async def test_the_client_gets_the_last_bytes_after_the_settlement(
    tmp_path: Path, twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    sent: list[bytes] = []
    ended = world.ledger.ended

    def end(*args: Any, **more: Any) -> None:
        sent.append(client.wire.sent)
        ended(*args, **more)

    monkeypatch.setattr(world.ledger, "ended", end)
    upstream.feed(answer())
    await one_row(world)
    assert sent == [b""]
    assert client.status == 200


@pytest.mark.interpreted
@timeless
async def test_a_client_that_leaves_during_the_settlement_gets_nothing(
    tmp_path: Path, twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    ended = world.ledger.ended

    def end(*args: Any, **more: Any) -> None:
        client.wire.hangs_up()
        ended(*args, **more)

    monkeypatch.setattr(world.ledger, "ended", end)
    upstream.feed(STREAMING + CREATED + COMPLETED)
    assert (await one_row(world))["outcome"] == "completed"
    assert b"response.completed" not in client.body
    assert not world.plane.interrupt()


@timeless
async def test_a_client_that_stalls_behind_the_terminal_event_has_completed(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    upstream.feed(STREAMING + CREATED + COMPLETED)
    await settled()
    world.plane.check(clock().time() + REQUEST_S + CLIENT_GRACE_S + 1)
    row = await one_row(world)
    assert row["outcome"] == "completed"
    assert client.wire.aborted


@timeless
async def test_a_task_that_others_cancel_behind_the_terminal_event_is_cancelled(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    upstream.feed(STREAMING + CREATED + COMPLETED)
    await settled()
    task = client.connection.task
    assert task is not None
    task.cancel()
    assert (await one_row(world))["outcome"] == "completed"
    assert task.cancelled()
    assert client.wire.aborted


@timeless
async def test_a_packed_stream_that_breaks_behind_its_end_breaks_the_client(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    packed = STREAMING.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n"
                               b"content-length: 9999\r\n\r\n")  # fmt: skip
    packer = zlib.compressobj(wbits=31)
    data = packer.compress(CREATED + COMPLETED) + packer.flush(zlib.Z_SYNC_FLUSH)
    upstream.feed(packed + data)
    await settled()
    row = await one_row(world)
    upstream.hangs_up()
    await settled()
    assert (row["outcome"], row.get("error_code")) == ("completed", None)
    assert client.wire.aborted


# Faults of the gateway ---------------------------------------------------------


@pytest.mark.interpreted
@timeless
async def test_an_answer_that_cannot_be_understood_is_settled(
    tmp_path: Path, twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(*_: Any) -> Any:
        raise RuntimeError("odd")

    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    monkeypatch.setattr("services.gateway.proxy.answer_notes.read_answer", odd)
    upstream.feed(answer())
    row = await one_row(world)
    assert (client.status, row["status_code"], row["outcome"]) == (200, 200, "failed")
    assert len(twin.released) == 1


@pytest.mark.interpreted
@timeless
async def test_a_fault_within_an_answer_breaks_it(
    tmp_path: Path, twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: Any) -> Any:
        raise RuntimeError("ours")

    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    upstream.feed(STREAMING + CREATED)
    await settled()
    monkeypatch.setattr("services.gateway.content.sse.EventTap.feed", fault)
    upstream.feed(CREATED)
    row = await one_row(world)
    assert row["outcome"] == "failed"
    assert client.wire.aborted
    assert upstream.aborted
    assert twin.released[0].verdict is not None
    assert twin.released[0].verdict.kind == "ok"


@timeless
async def test_an_exception_that_is_none_of_a_requests_is_raised(
    tmp_path: Path, twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(BaseException):
        pass

    async def stops(*_: Any) -> Any:
        await asyncio.sleep(0)
        raise Stop

    world = World(tmp_path, twin)
    monkeypatch.setattr(twin, "acquire", stops)
    client = world.client()
    client.wire.feed(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
    task = client.connection.task
    assert task is not None
    with pytest.raises(Stop):
        await asyncio.wait_for(task, 60)
    world.is_at_rest()
    assert client.wire.aborted


# Admission ---------------------------------------------------------------------


@timeless
async def test_a_large_body_is_read_beside_others(tmp_path: Path, twin: Twin) -> None:
    world = World(tmp_path, twin)
    _, upstream = await asked(world, LARGE)
    upstream.feed(answer())
    row = await one_row(world)
    assert (row["model"], row["request_bytes"]) == ("m", len(LARGE))


@pytest.mark.parametrize("key", [True, False])
@timeless
async def test_trace_is_refused_with_any_key(
    tmp_path: Path, twin: Twin, key: bool
) -> None:
    world = World(tmp_path, twin)
    world.table.put(Principal(id="k"))
    client = world.client()
    headers = [KEY] if key else []
    await client.asks(b"", *headers, line=b"TRACE /v1/responses")
    assert (client.status, client.code) == (405, "method_not_allowed")
    assert world.requests == []


@timeless
async def test_requests_of_one_connection_are_served_in_turn(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client = world.client()
    await client.asks()
    await client.asks()  # pipelined
    assert len(world.upstreams) == 1
    for _ in range(2):
        world.upstreams[-1].feed(answer())
        await settled()
    world.is_at_rest()
    assert client.wire.sent.count(b"HTTP/1.1 200 OK") == 2


@timeless
async def test_a_background_response_can_be_asked_for_while_it_runs(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world, b'{"model":"m","background":true}')
    upstream.feed(STREAMING + CREATED)
    await settled()
    (resource_id,) = {row["resource_id"] for row in world.decisions}
    ((_, ids),) = twin.adopted
    assert list(ids) == [digest("resp_1")]
    owner = ids[digest("resp_1")]
    assert owner is not None
    assert owner.resource_id == resource_id
    assert world.offline.local.ids[digest("resp_1")] == owner
    client.wire.hangs_up()
    await one_row(world)
