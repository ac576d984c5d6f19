"""Chooses at start whether there are traces, so that requests need not ask."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from libs.common.settings.tracing import TracingSettings
from services.gateway.proxy.in_flight import InFlight

if TYPE_CHECKING:
    from services.gateway.tracing.spans import Spans


def in_flight_class(
    settings: TracingSettings, gateway_id: str
) -> Callable[..., InFlight]:
    """What follows requests. Without traces nothing of OpenTelemetry is imported."""
    if not settings.traces:
        return InFlight
    from services.gateway.tracing.spans import Spans  # noqa: PLC0415 - an extra

    return traced(Spans(gateway_id))


def traced(spans: "Spans") -> Callable[..., InFlight]:
    from services.gateway.tracing.traced_in_flight import (  # noqa: PLC0415 - the same
        TracedInFlight,
    )

    def made(*parts: Any, **options: Any) -> InFlight:
        in_flight = TracedInFlight(*parts, **options)
        in_flight.trace_with(spans)
        return in_flight

    return made
