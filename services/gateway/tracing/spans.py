"""Makes spans and exports them with OpenTelemetry's SDK: the only module that imports
it, so that a gateway without traces needs none of its packages.

Spans are made when a request has ended, from what was measured of it. A thread of the
SDK exports them; its queue is bounded (OTEL_BSP_MAX_QUEUE_SIZE)."""

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Callable
from importlib.metadata import version

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.trace.status import Status, StatusCode

from libs.common.headers import Header
from libs.common.runtime.log_limit import LogLimit, more
from services.gateway.tracing.attributes import Described
from services.gateway.tracing.request_trace import RequestTrace
from services.gateway.tracing.trace_context import SAMPLED, parent_in

log = structlog.get_logger()

NAME = "responses-proxy-gateway"
_CHARS = 300  # of what the exporter says
_ERROR = Status(StatusCode.ERROR)


class Spans:
    """Begins traces, and exports their spans."""

    def __init__(
        self, gateway_id: str, processor: Callable[[], SpanProcessor] | None = None
    ) -> None:
        """Reads OTEL_* from the environment. `processor`: gets the spans; None exports
        them in batches."""
        _take_messages()
        default = {
            "service.name": NAME,
            "service.version": version("responses-proxy"),
            "service.instance.id": gateway_id,
        }
        # Attributes of the environment have precedence.
        named = OTELResourceDetector().detect()
        resource = Resource.create(default).merge(named)
        self._sampler = TracerProvider(shutdown_on_exit=False).sampler
        self._ids = _Ids()
        # Only sampled requests get here.
        provider = TracerProvider(
            ALWAYS_ON, resource, shutdown_on_exit=False, id_generator=self._ids
        )
        make = processor or (lambda: BatchSpanProcessor(OTLPSpanExporter()))
        provider.add_span_processor(make())
        self._provider = provider
        self._tracer = provider.get_tracer(
            "responses-proxy", version("responses-proxy")
        )
        self._draw = random.getrandbits

    def begin(self, headers: list[Header], name: str) -> RequestTrace:
        """A request's trace: its client's, or a new one."""
        parent = parent_in(headers)
        trace_id = self.span_id(128) if parent is None else parent.trace_id
        context = Context()
        if parent is not None:
            context = set_span_in_context(
                NonRecordingSpan(
                    _context(parent.trace_id, parent.span_id, parent.flags, remote=True)
                )
            )
        result = self._sampler.should_sample(context, trace_id, name, SpanKind.SERVER)
        return RequestTrace(
            trace_id,
            self.span_id(),
            parent,
            result.decision is Decision.RECORD_AND_SAMPLE,
            () if parent is None else parent.state,
        )

    def span_id(self, bits: int = 64) -> int:
        """A new id, which is never 0."""
        return self._draw(bits) or 1

    def export(
        self,
        trace: RequestTrace,
        span_id: int,
        parent_id: int | None,
        described: Described,
        began: float,
        ended: float,
    ) -> None:
        """Hand over a span. `parent_id`: in the same trace. `began` and `ended` are
        seconds of Unix time."""
        context = Context()
        if parent_id is not None:
            of_gateway = parent_id == trace.span_id
            parent = _context(
                trace.trace_id,
                parent_id,
                SAMPLED,
                remote=not of_gateway,
                state=TraceState(trace.state),
            )
            context = set_span_in_context(NonRecordingSpan(parent), context)
        kind = SpanKind.SERVER if span_id == trace.span_id else SpanKind.CLIENT
        self._ids.next = trace.trace_id, span_id
        span = self._tracer.start_span(
            described.name,
            context,
            kind,
            described.attributes,
            start_time=int(began * 1e9),
        )
        if described.failed:
            span.set_status(_ERROR)
        span.end(int(ended * 1e9))

    async def close(self, within_s: float) -> None:
        """Export what is left. A collector that does not answer must not delay the
        end of the gateway: the thread ends with the process."""
        loop, over = asyncio.get_running_loop(), asyncio.Event()

        def close() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(over.set)

        threading.Thread(target=close, daemon=True).start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await over.wait()


def _context(
    trace_id: int,
    span_id: int,
    flags: int,
    *,
    remote: bool,
    state: TraceState | None = None,
) -> SpanContext:
    return SpanContext(trace_id, span_id, remote, TraceFlags(flags), state)


class _Ids(IdGenerator):
    """Gives a span the ids that were already sent upstream."""

    next = (0, 0)

    def generate_trace_id(self) -> int:
        return self.next[0]

    def generate_span_id(self) -> int:
        return self.next[1]


class _Messages(logging.Handler):
    """Turns the lines of the exporter into ours, and limits them."""

    _limit = LogLimit()

    def emit(self, record: logging.LogRecord) -> None:
        left_out = self._limit.take(record.levelname)
        if left_out is not None:
            log.warning(
                "traces are not exported as they should",
                action="traces_failed",
                cause=record.getMessage()[:_CHARS],
                **more(left_out),
            )


def _take_messages() -> None:
    logger = logging.getLogger("opentelemetry")
    if not any(isinstance(handler, _Messages) for handler in logger.handlers):
        logger.addHandler(_Messages(logging.WARNING))
        logger.propagate = False
