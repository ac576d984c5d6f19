"""What a batch changes, given what is stored already. Pure.

A request is stored once, whatever is sent twice; a real outcome takes the place
of `interrupted`, never the other way round. Sessions count only what is new."""

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
    """A request's row as it is in the database."""

    session_id: str | None
    outcome: str
    total_tokens: int


@dataclass(frozen=True, slots=True)
class SessionGain:
    """What a batch adds to one session; its newest request names it."""

    id: str
    requests: int
    total_tokens: int
    first_ms: int
    last_ms: int
    name: str | None = None
    resource_id: str | None = None


@dataclass(frozen=True, slots=True)
class GatewayGain:
    """What a batch tells of one gateway, and how many of its requests it stores."""

    id: str
    stored: int = 0
    started_ms: int | None = None
    seen_ms: int | None = None
    accepted: int = 0
    ended: int = 0
    held: int = 0
    state: str = "running"


@dataclass(frozen=True, slots=True)
class Settled:
    """What to write. `fresh` counts the requests that were not there before."""

    events: tuple[StreamedEvent, ...]
    requests: tuple[RequestEvent, ...]
    sessions: tuple[SessionGain, ...]
    fresh: int
    gateways: tuple[GatewayGain, ...] = ()


def request_keys(events: Iterable[StreamedEvent]) -> set[Key]:
    return {_key(e.event) for e in events if isinstance(e.event, RequestEvent)}


def settle(events: Sequence[StreamedEvent], stored: Mapping[Key, Stored]) -> Settled:
    """Leave out what changes nothing, and say what the rest adds to sessions."""
    kept = tuple(e for e in _once(events) if not _settled_before(e, stored))
    requests = tuple(e.event for e in kept if isinstance(e.event, RequestEvent))
    gains: dict[str, SessionGain] = {}
    for request in sorted(requests, key=lambda r: (r.created_at_ms, r.id)):
        before = stored.get(_key(request))
        if before and before.session_id:
            _add(gains, _loss(before.session_id, request, before))
        if request.session_id:
            _add(gains, _gain(request.session_id, request))
    fresh = [request for request in requests if _key(request) not in stored]
    return Settled(
        kept, requests, tuple(gains.values()), len(fresh), _gateways(kept, fresh)
    )


def _gateways(
    events: Sequence[StreamedEvent], fresh: Sequence[RequestEvent]
) -> tuple[GatewayGain, ...]:
    """One gain for each gateway. Reports come in any order."""
    gains: dict[str, GatewayGain] = {}
    for request in fresh:
        id_ = request.gateway_id or ""
        gain = gains.get(id_, GatewayGain(id_))
        gains[id_] = replace(gain, stored=gain.stored + 1)
    for streamed in events:
        if isinstance(streamed.event, GatewayEvent):
            id_ = streamed.event.gateway_id
            gains[id_] = _told(gains.get(id_, GatewayGain(id_)), streamed.event)
    return tuple(gains.values())


def _told(gain: GatewayGain, event: GatewayEvent) -> GatewayGain:
    newest = gain.seen_ms is None or event.created_at_ms >= gain.seen_ms
    return replace(
        gain,
        started_ms=event.started_at_ms,
        seen_ms=max(event.created_at_ms, gain.seen_ms or 0),
        accepted=max(event.accepted, gain.accepted),
        ended=max(event.ended, gain.ended),
        held=event.held if newest else gain.held,
        state="closed" if "closed" in (event.state, gain.state) else event.state,
    )


def _key(request: RequestEvent) -> Key:
    return request.id, request.created_at_ms


def _once(events: Sequence[StreamedEvent]) -> Iterable[StreamedEvent]:
    """One event per key: the first, unless a later one says how it really ended."""
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


def _settled_before(event: StreamedEvent, stored: Mapping[Key, Stored]) -> bool:
    if not isinstance(event.event, RequestEvent):
        return False  # the primary key absorbs its replay
    before = stored.get(_key(event.event))
    return before is not None and not _may_replace(before.outcome, event.event.outcome)


def _gain(session_id: str, request: RequestEvent) -> SessionGain:
    return SessionGain(
        id=session_id,
        requests=1,
        total_tokens=request.total_tokens or 0,
        first_ms=request.created_at_ms,
        last_ms=request.created_at_ms,
        name=request.session_name,
        resource_id=request.resource_id,
    )


def _loss(session_id: str, request: RequestEvent, before: Stored) -> SessionGain:
    """What the replaced row had added; the row in its place adds its own."""
    at_ms = request.created_at_ms
    return SessionGain(session_id, -1, -before.total_tokens, at_ms, at_ms)


def _add(gains: dict[str, SessionGain], gain: SessionGain) -> None:
    """Gains come oldest first, so the later one names the session."""
    known = gains.get(gain.id)
    gains[gain.id] = (
        gain
        if known is None
        else replace(
            known,
            requests=known.requests + gain.requests,
            total_tokens=known.total_tokens + gain.total_tokens,
            first_ms=min(known.first_ms, gain.first_ms),
            last_ms=max(known.last_ms, gain.last_ms),
            name=gain.name or known.name,
            resource_id=gain.resource_id or known.resource_id,
        )
    )
