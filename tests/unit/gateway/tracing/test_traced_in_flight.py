"""What is noted of requests in a gateway that makes traces."""

from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from structlog.testing import capture_logs

from libs.common.headers import Header
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.tracing import attributes
from services.gateway.tracing.choice import traced as traced_by
from services.gateway.tracing.spans import Spans
from services.gateway.tracing.traced_in_flight import TracedInFlight
from tests.support.memory.clock import settled, timeless
from tests.support.memory.plane import World, answer, error
from tests.support.memory.requests import KEY, asked, one_row
from tests.support.memory.transports import Wire
from tests.support.memory.twin import Twin, resource

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT: Header = (b"traceparent", f"00-{TRACE}-{SPAN}-01".encode())
UNSAMPLED: Header = (b"traceparent", f"00-{TRACE}-{SPAN}-00".encode())


class Kept(SpanProcessor):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


@pytest.fixture
def kept() -> Kept:
    return Kept()


def traced(folder: Path, kept: Kept, resources: str = "abc") -> World:
    spans = Spans("gw-1", lambda: kept)
    twin = Twin(*(resource(id_) for id_ in resources))
    return World(folder, twin, follows=traced_by(spans))


def parents_sent(upstream: Wire) -> list[str]:
    """Span ids in the `traceparent` headers that an upstream got."""
    lines = [
        line for line in upstream.sent.decode().split("\r\n") if "traceparent" in line
    ]
    assert all(line.startswith(f"traceparent: 00-{TRACE}-") for line in lines)
    return [line.split("-")[2] for line in lines]


def ids(kept: Kept) -> list[str]:
    return [f"{span.context.span_id:016x}" for span in kept.spans if span.context]


@timeless
async def test_each_attempt_is_the_parent_of_what_its_upstream_does(
    tmp_path: Path, kept: Kept
) -> None:
    world = traced(tmp_path, kept)
    _, first = await asked(world, b'{"model":"m"}', PARENT)
    first.feed(error(503))
    await settled()
    second = world.upstreams[-1]
    second.feed(answer(b"{}"))
    row = await one_row(world)
    gateway, failed, served = ids(kept)
    assert parents_sent(first) == [failed]
    assert parents_sent(second) == [served]
    assert len({gateway, failed, served, SPAN}) == 4
    found = [dict(span.attributes or {}) for span in kept.spans]
    assert found[0]["responses_proxy.id"] == row["id"]
    assert found[1]["error.type"] == "server_error"
    assert found[1]["http.response.status_code"] == 503
    assert found[2]["http.response.status_code"] == 200


@timeless
async def test_an_attempt_without_an_answer_has_no_status(
    tmp_path: Path, kept: Kept
) -> None:
    world = traced(tmp_path, kept)
    _, first = await asked(world, b'{"model":"m"}')
    first.feed(error(503))
    await settled()
    world.upstreams[-1].feed(b"nonsense\r\n\r\n")
    await settled()
    world.upstreams[-1].feed(answer(b"{}"))
    await one_row(world)
    found = [dict(span.attributes or {}) for span in kept.spans[1:]]
    assert [each.get("http.response.status_code") for each in found] == [503, None, 200]
    assert found[1]["error.type"] == "connection_lost"


@timeless
async def test_an_attempt_has_its_own_status_also_if_the_client_gets_another(
    tmp_path: Path, kept: Kept
) -> None:
    world = traced(tmp_path, kept, "ab")
    client, first = await asked(world, b'{"model":"m"}')
    first.feed(error(503))
    await settled()
    world.upstreams[-1].feed(error(401))
    await one_row(world)
    found = [dict(span.attributes or {}) for span in kept.spans]
    statuses = [each.get("http.response.status_code") for each in found]
    assert (client.status, statuses) == (503, [503, 503, 401])
    assert found[2]["error.type"] == "key_refused"


@timeless
async def test_what_is_not_sampled_is_passed_on_and_not_exported(
    tmp_path: Path, kept: Kept
) -> None:
    world = traced(tmp_path, kept)
    _, upstream = await asked(world, b'{"model":"m"}', UNSAMPLED)
    upstream.feed(answer(b"{}"))
    await one_row(world)
    (parent,) = parents_sent(upstream)
    assert parent != SPAN
    assert kept.spans == []


@timeless
async def test_a_request_that_was_not_accepted_has_no_span(
    tmp_path: Path, kept: Kept
) -> None:
    world = traced(tmp_path, kept)
    client = world.client()
    await client.asks(b"{}", KEY)  # of no proxy key
    await settled()
    assert b" 401 " in client.wire.sent
    assert kept.spans == []
    is_at_rest(world)


@timeless
async def test_a_span_that_cannot_be_made_harms_no_request(
    tmp_path: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = traced(tmp_path, kept)

    def broken(_: Lifecycle) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(attributes, "of_request", broken)
    _, upstream = await asked(world, b'{"model":"m"}')
    with capture_logs() as lines:
        upstream.feed(answer(b"{}"))
        row = await one_row(world)
    assert row["outcome"] == "completed"
    assert [line["action"] for line in lines] == ["trace_lost"]
    assert kept.spans == []


@timeless
async def test_times_are_those_of_the_ledger(tmp_path: Path, kept: Kept) -> None:
    world = traced(tmp_path, kept)
    _, upstream = await asked(world, b'{"model":"m"}')
    upstream.feed(answer(b"{}"))
    row = await one_row(world)
    span, attempt = kept.spans
    times = span.start_time, attempt.start_time, attempt.end_time, span.end_time
    nanoseconds = [time for time in times if time is not None]
    assert nanoseconds == sorted(nanoseconds)
    assert len(nanoseconds) == 4
    assert abs(nanoseconds[-1] / 1e6 - row["completed_at_ms"]) < 5_000


@timeless
async def test_nothing_is_left_of_requests(tmp_path: Path, kept: Kept) -> None:
    world = traced(tmp_path, kept, "a")  # so that all use one connection
    for _ in range(3):
        _, upstream = await asked(world, b'{"model":"m"}', PARENT)
        upstream.feed(answer(b"{}"))
        await settled()
    is_at_rest(world)


def is_at_rest(world: World) -> None:
    assert isinstance(world.in_flight, TracedInFlight)
    assert world.in_flight._traces == {}
