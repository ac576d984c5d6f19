"""Computes what a batch changes, given the rows already stored. Pure.

A request is stored once, however often it is sent. A final outcome replaces
`interrupted`, never the reverse. Sessions count only new requests."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from libs.common.contracts.events import (
    GatewayEvent,
    Outcome,
    RequestEvent,
    StreamedEvent,
)

Key = tuple[str, int]  # a request's id and created_at in ms: its primary key


@dataclass(frozen=True, slots=True)
class Stored:
    """The stored row of a request."""

    session_id: str | None
    outcome: str
    total_tokens: int


@dataclass(frozen=True, slots=True)
class SessionDelta:
    """Changes to a session. Its name and resource are those of the newest request."""

    id: str
    requests: int
    total_tokens: int
    first_ms: int
    last_ms: int
    name: str | None = None
    resource_id: str | None = None


@dataclass(frozen=True, slots=True)
class GatewayDelta:
    """Changes to the ledger of a gateway: its newest report, and stored requests."""

    id: str
    stored: int = 0
    started_ms: int | None = None
    seen_ms: int | None = None
    accepted: int = 0
    ended: int = 0
    held: int = 0
    state: str = "running"


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows to write. `fresh` is the number of requests that were not stored before."""

    events: tuple[StreamedEvent, ...]
    requests: tuple[RequestEvent, ...]
    sessions: tuple[SessionDelta, ...]
    fresh: int
    gateways: tuple[GatewayDelta, ...] = ()


def request_keys(events: Iterable[StreamedEvent]) -> set[Key]:
    return {_key(e.event) for e in events if isinstance(e.event, RequestEvent)}


def dedupe(events: Sequence[StreamedEvent], stored: Mapping[Key, Stored]) -> Changes:
    """Drop events that change nothing, and compute the changes of the others."""
    kept = tuple(e for e in _once(events) if not _already_stored(e, stored))
    requests = tuple(e.event for e in kept if isinstance(e.event, RequestEvent))
    deltas: dict[str, SessionDelta] = {}
    for request in sorted(requests, key=lambda r: (r.created_at_ms, r.id)):
        before = stored.get(_key(request))
        if before and before.session_id:
            _add(deltas, _removed(before.session_id, request, before))
        if request.session_id:
            _add(deltas, _added(request.session_id, request))
    fresh = [request for request in requests if _key(request) not in stored]
    return Changes(
        kept, requests, tuple(deltas.values()), len(fresh), _gateways(kept, fresh)
    )


def _gateways(
    events: Sequence[StreamedEvent], fresh: Sequence[RequestEvent]
) -> tuple[GatewayDelta, ...]:
    """Return the changes of each gateway. Reports may arrive in any order."""
    deltas: dict[str, GatewayDelta] = {}
    for request in fresh:
        id_ = request.gateway_id or ""
        delta = deltas.get(id_, GatewayDelta(id_))
        deltas[id_] = replace(delta, stored=delta.stored + 1)
    for streamed in events:
        if isinstance(streamed.event, GatewayEvent):
            id_ = streamed.event.gateway_id
            deltas[id_] = _updated(deltas.get(id_, GatewayDelta(id_)), streamed.event)
    return tuple(deltas.values())


def _updated(delta: GatewayDelta, event: GatewayEvent) -> GatewayDelta:
    newest = delta.seen_ms is None or event.created_at_ms >= delta.seen_ms
    return replace(
        delta,
        started_ms=event.started_at_ms,
        seen_ms=max(event.created_at_ms, delta.seen_ms or 0),
        accepted=max(event.accepted, delta.accepted),
        ended=max(event.ended, delta.ended),
        held=event.held if newest else delta.held,
        state="closed" if "closed" in (event.state, delta.state) else event.state,
    )


def _key(request: RequestEvent) -> Key:
    return request.id, request.created_at_ms


def _once(events: Sequence[StreamedEvent]) -> Iterable[StreamedEvent]:
    """Keep one event per key: the first, unless a later one has a final outcome."""
    kept: dict[tuple[str, str, int], StreamedEvent] = {}
    for event in events:
        key = (event.kind, event.id, event.event.created_at_ms)
        if key not in kept or _replaces(event, kept[key]):
            kept[key] = event
    return kept.values()


def _replaces(later: StreamedEvent, earlier: StreamedEvent) -> bool:
    if not isinstance(later.event, RequestEvent):
        return False
    assert isinstance(earlier.event, RequestEvent)
    return _may_replace(earlier.event.outcome, later.event.outcome)


def _may_replace(before: str, after: str) -> bool:
    return before == Outcome.INTERRUPTED and after != Outcome.INTERRUPTED


def _already_stored(event: StreamedEvent, stored: Mapping[Key, Stored]) -> bool:
    if not isinstance(event.event, RequestEvent):
        return False  # the primary key absorbs its replay
    before = stored.get(_key(event.event))
    return before is not None and not _may_replace(before.outcome, event.event.outcome)


def _added(session_id: str, request: RequestEvent) -> SessionDelta:
    return SessionDelta(
        id=session_id,
        requests=1,
        total_tokens=request.total_tokens or 0,
        first_ms=request.created_at_ms,
        last_ms=request.created_at_ms,
        name=request.session_name,
        resource_id=request.resource_id,
    )


def _removed(session_id: str, request: RequestEvent, before: Stored) -> SessionDelta:
    """Subtract a replaced row; the row that replaces it is added separately."""
    at_ms = request.created_at_ms
    return SessionDelta(session_id, -1, -before.total_tokens, at_ms, at_ms)


def _add(deltas: dict[str, SessionDelta], delta: SessionDelta) -> None:
    """Add up changes of a session, which come in order of time."""
    known = deltas.get(delta.id)
    deltas[delta.id] = (
        delta
        if known is None
        else replace(
            known,
            requests=known.requests + delta.requests,
            total_tokens=known.total_tokens + delta.total_tokens,
            first_ms=min(known.first_ms, delta.first_ms),
            last_ms=max(known.last_ms, delta.last_ms),
            name=delta.name or known.name,
            resource_id=delta.resource_id or known.resource_id,
        )
    )
