"""A collector of traces: what a gateway exports by OTLP over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from libs.simulator.server import end, listen
from tests.support.processes.waiting import eventually

SERVER = trace_pb2.Span.SPAN_KIND_SERVER
CLIENT = trace_pb2.Span.SPAN_KIND_CLIENT
ERROR = trace_pb2.Status.STATUS_CODE_ERROR


@dataclass(frozen=True)
class Span:
    """A span, ids in hex. `parent` is empty for the first one of a trace."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    state: str
    began_ns: int
    ended_ns: int
    failed: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]


@dataclass
class Collector:
    """What it got so far."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)  # of requests
    status: int = 200  # that it answers

    async def take(self, request: web.Request) -> web.Response:
        """`POST /v1/traces`."""
        assert request.content_type == "application/x-protobuf"
        self.headers.append({k.lower(): v for k, v in request.headers.items()})
        message = ExportTraceServiceRequest.FromString(await request.read())
        if self.status == 200:
            self.spans += _spans(message)
        return web.Response(status=self.status)

    def of(self, request_id: str) -> list[Span]:
        """The spans of a request: its own, then those of its attempts in order."""
        own = [s for s in self.spans if s.attributes.get("responses_proxy.id") ==
               request_id]  # fmt: skip
        ids = {span.id for span in own}
        rest = [span for span in self.spans if span.parent in ids]
        rest.sort(key=lambda span: span.attributes["responses_proxy.attempt"])
        return [*own, *rest]

    async def trace_of(self, request_id: str, count: int) -> list[Span]:
        """The same, once there are `count`."""

        async def all_here() -> bool:
            return len(self.of(request_id)) >= count

        await eventually(all_here)
        found = self.of(request_id)
        assert len(found) == count, found
        return found


def _spans(message: ExportTraceServiceRequest) -> list[Span]:
    return [
        Span(
            span.name,
            span.kind,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.trace_state,
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            span.status.code == ERROR,
            {pair.key: _value(pair.value) for pair in span.attributes},
            {pair.key: _value(pair.value) for pair in group.resource.attributes},
        )
        for group in message.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _value(value: AnyValue) -> Any:
    return getattr(value, value.WhichOneof("value") or "string_value")


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector on a port of its own."""
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app)
    listener = await listen(runner, "127.0.0.1", 0)
    collector.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        yield collector
    finally:
        await end(runner, listener)


def tracing(collector: Collector) -> dict[str, str]:
    """Settings of a gateway that exports to the collector, soon."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "20",
    }
