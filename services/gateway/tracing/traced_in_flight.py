"""`InFlight` of a gateway that makes traces. Without them the gateway has the plain
one, and requests pay nothing."""

import time
from collections.abc import Callable

import structlog

from libs.common.headers import Header
from libs.common.providers.key_headers import API_KEY
from services.gateway.capture.capture import Capture
from services.gateway.proxy.in_flight import InFlight
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.proxy.steps import ARRIVED, SETTLED
from services.gateway.routing.target import Target
from services.gateway.tracing import attributes
from services.gateway.tracing.attributes import Described
from services.gateway.tracing.request_trace import AttemptTrace, RequestTrace
from services.gateway.tracing.spans import Spans
from services.gateway.tracing.trace_context import with_parent, written

log = structlog.get_logger()

EXPORTED_WITHIN_S = 2.0  # how long to wait for a collector when the gateway ends


class TracedInFlight(InFlight):
    """Notes attempts, names them to upstreams as parents, and makes spans of requests
    that ended. Needs `trace_with` before the first request."""

    def trace_with(self, spans: Spans) -> None:
        self._spans = spans
        self._traces: dict[str, RequestTrace] = {}  # by request id

    def attempt_began(self, life: Lifecycle, target: Target) -> None:
        """As `InFlight.attempt_began`."""
        super().attempt_began(life, target)
        trace, now = self._trace(life), time.perf_counter()
        number = life.record.attempts
        resource, origin = target.resource, target.origin
        if not trace.continued(number, resource.id):
            trace.end_last(now)
            azure = resource.auth_type == API_KEY
            attempt = AttemptTrace(
                number,
                self._spans.span_id(),
                resource.id,
                origin.host,
                origin.port,
                "azure.ai.openai" if azure else "openai",
                life.decision.reason,
                now,
            )
            trace.attempts.append(attempt)
        life.sends(with_parent(life.headers, _named(trace)))

    def attempt_failed(self, life: Lifecycle) -> None:
        """As `InFlight.attempt_failed`."""
        super().attempt_failed(life)
        trace, now = self._trace(life), time.perf_counter()
        trace.end_last(now, str(life.cause), life.error_status)

    def upgraded(self, life: Lifecycle) -> None:
        """As `InFlight.upgraded`."""
        super().upgraded(life)
        self._ended(life, attributes.of_upgrade)

    def settle(self, life: Lifecycle, capture: Capture | None) -> None:
        """As `InFlight.settle`."""
        settles = life.phase is not ARRIVED and life.phase is not SETTLED
        super().settle(life, capture)
        if settles:
            self._ended(life, attributes.of_request)

    async def close(self) -> None:
        """As `InFlight.close`."""
        await self._spans.close(EXPORTED_WITHIN_S)

    def _trace(self, life: Lifecycle) -> RequestTrace:
        trace = self._traces.get(life.record.id)
        if trace is None:
            name = f"{life.record.method[:10]} /v1"
            trace = self._spans.begin(life.request.headers, name)
            self._traces[life.record.id] = trace
        return trace

    def _ended(
        self, life: Lifecycle, describe: Callable[[Lifecycle], Described]
    ) -> None:
        trace = self._trace(life)
        del self._traces[life.record.id]
        if not trace.sampled:
            return
        try:
            self._export(life, trace, describe(life))
        except Exception:
            # The request was served; only its trace is lost.
            log.exception("trace not made", action="trace_lost", request=life.record.id)

    def _export(
        self, life: Lifecycle, trace: RequestTrace, described: Described
    ) -> None:
        now, export = time.perf_counter(), self._spans.export
        # One for all spans of the request: the process may be interrupted in between.
        unix = time.time() - now
        trace.end_last(now)
        parent_id = None if trace.parent is None else trace.parent.span_id
        export(
            trace, trace.span_id, parent_id, described, life.began + unix, now + unix
        )
        for attempt in trace.attempts:
            last = attempt is trace.attempts[-1]
            of_attempt = attributes.of_attempt(life, attempt, last=last)
            ended = now if attempt.ended is None else attempt.ended
            began, ended = attempt.began + unix, ended + unix
            export(trace, attempt.span_id, trace.span_id, of_attempt, began, ended)


def _named(trace: RequestTrace) -> list[Header]:
    """The headers that name the current attempt as the parent of the upstream's
    spans."""
    span_id = trace.attempts[-1].span_id
    return written(trace.trace_id, span_id, sampled=trace.sampled, state=trace.state)
