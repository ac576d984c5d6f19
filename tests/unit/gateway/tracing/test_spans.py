"""Spans as the SDK gets them."""

import asyncio
import logging
import threading

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.trace.status import StatusCode
from structlog.testing import capture_logs

from libs.common.headers import Header
from services.gateway.tracing.attributes import Described
from services.gateway.tracing.spans import Spans

TRACE, SPAN = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7


class Kept(SpanProcessor):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self.closes = threading.Event()
        self.closes.set()

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)

    def shutdown(self) -> None:
        self.closes.wait(20)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def spans(kept: Kept) -> Spans:
    return Spans("gw-1", lambda: kept)


def client(flags: str = "01", state: bytes = b"a=1") -> list[Header]:
    parent = f"00-{TRACE:032x}-{SPAN:016x}-{flags}".encode()
    return [(b"traceparent", parent), (b"tracestate", state)]


def described(*, failed: bool = False) -> Described:
    return Described("name", {"a": 1}, failed)


def test_a_clients_trace_goes_on(spans: Spans, kept: Kept) -> None:
    trace = spans.begin(client(), "name")
    assert (trace.trace_id, trace.sampled, trace.state) == (TRACE, True, (("a", "1"),))
    spans.export(trace, trace.span_id, SPAN, described(), 1.0, 2.5)
    spans.export(trace, 9, trace.span_id, described(failed=True), 1.5, 2.0)
    own, attempt = kept.spans
    assert own.parent is not None
    assert (own.parent.span_id, own.parent.is_remote) == (SPAN, True)
    assert own.context is not None
    assert (own.context.trace_id, own.context.span_id) == (TRACE, trace.span_id)
    assert dict(own.context.trace_state) == {"a": "1"}
    assert (own.kind, attempt.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert attempt.parent is not None
    assert (attempt.parent.span_id, attempt.parent.is_remote) == (trace.span_id, False)
    assert attempt.context is not None
    assert attempt.context.span_id == 9
    assert own.start_time is not None
    assert own.end_time is not None
    assert round((own.end_time - own.start_time) / 1e6) == 1500
    assert own.status.status_code is StatusCode.UNSET
    assert attempt.status.status_code is StatusCode.ERROR


def test_without_a_parent_a_trace_begins(spans: Spans, kept: Kept) -> None:
    one, two = spans.begin([], "name"), spans.begin([], "name")
    assert one.sampled
    assert len({one.trace_id, two.trace_id, one.span_id, two.span_id}) == 4
    spans.export(one, one.span_id, None, described(), 1.0, 2.0)
    (span,) = kept.spans
    assert span.parent is None
    assert span.context is not None
    assert span.context.trace_id == one.trace_id


@pytest.mark.parametrize(
    ("sampler", "argument", "flags", "sampled"),
    [
        ("", "", "01", True),
        ("", "", "00", False),
        ("always_on", "", "00", True),
        ("always_off", "", "01", False),
        ("traceidratio", "0", "01", False),
        ("traceidratio", "1", "00", True),
        ("parentbased_traceidratio", "0", "01", True),
        ("parentbased_always_off", "", None, False),
    ],
)
def test_sampling(
    monkeypatch: pytest.MonkeyPatch,
    sampler: str,
    argument: str,
    flags: str | None,
    sampled: bool,
) -> None:
    for variable, value in (("", sampler), ("_ARG", argument)):
        if value:
            monkeypatch.setenv(f"OTEL_TRACES_SAMPLER{variable}", value)
    spans = Spans("gw-1", Kept)
    headers = [] if flags is None else client(flags)
    assert spans.begin(headers, "name").sampled is sampled


def test_whose_spans_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def resource() -> dict[str, object]:
        kept = Kept()
        spans = Spans("gw-1", lambda: kept)
        trace = spans.begin([], "name")
        spans.export(trace, trace.span_id, None, described(), 1.0, 2.0)
        return dict(kept.spans[0].resource.attributes)

    found = resource()
    assert found["service.name"] == "responses-proxy-gateway"
    assert found["service.instance.id"] == "gw-1"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "a=b,service.instance.id=theirs")
    found = resource()
    assert found["service.name"] == "ours"
    assert (found["a"], found["service.instance.id"]) == ("b", "theirs")


@pytest.mark.asyncio
async def test_a_collector_that_does_not_answer_delays_the_end_by_its_bound(
    spans: Spans, kept: Kept
) -> None:
    kept.closes.clear()
    try:
        async with asyncio.timeout(60):
            await spans.close(0.01)
    finally:
        kept.closes.set()


@pytest.mark.asyncio
async def test_the_end_waits_until_all_is_exported(spans: Spans, kept: Kept) -> None:
    await spans.close(20)
    assert kept.closes.is_set()


def test_what_the_exporter_says_is_a_limited_line_of_ours(spans: Spans) -> None:
    logger = logging.getLogger("opentelemetry.exporter.test")
    with capture_logs() as lines:
        for _ in range(50):
            logger.error("Failed to export: %s", "x" * 1_000)
    assert 0 < len(lines) <= 10
    assert {line["action"] for line in lines} == {"traces_failed"}
    assert max(len(line["cause"]) for line in lines) <= 300
