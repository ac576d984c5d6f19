"""Computes what a batch changes, given the rows already stored. Pure.

A request is stored once, however often it is sent. A final outcome replaces
`interrupted`, never the reverse. Sessions count only new requests."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter

from libs.common.contracts.events import (
    GatewayEvent,
    Outcome,
    RequestEvent,
    Row,
    StreamedEvent,
)
from libs.common.store.rows import milliseconds

Key = tuple[str, int]  # a request's id and created_at in ms: its primary key


@dataclass(frozen=True, slots=True)
class Stored:
    """The stored row of a request."""

    session_id: str | None
    outcome: str
    total_tokens: int
    resource_id: str | None = None
    proxy_key_id: str | None = None


@dataclass(slots=True)
class SessionDelta:
    """Changes to a session. Its name and resource are those of the newest request."""

    id: str
    requests: int
    total_tokens: int
    first_seen_at_ms: int
    last_seen_at_ms: int
    name: str | None = None
    last_resource_id: str | None = None


@dataclass(slots=True)
class GatewayDelta:
    """Changes to the ledger of a gateway: its newest report, and stored requests."""

    id: str
    stored: int = 0
    started_at_ms: int | None = None
    last_seen_at_ms: int | None = None
    accepted: int = 0
    ended: int = 0
    held: int = 0
    state: str = "running"


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows to write. `fresh` is the number of requests that were not stored before;
    `replaced` are the keys of those that were, as `interrupted`."""

    events: tuple[StreamedEvent, ...]
    requests: tuple[RequestEvent, ...]
    sessions: tuple[SessionDelta, ...]
    fresh: int
    gateways: tuple[GatewayDelta, ...] = ()
    replaced: tuple[Key, ...] = ()
    retracted: tuple[tuple[int, Stored], ...] = ()  # the same: created_at_ms, and row


def stored_requests(rows: Iterable[Row]) -> dict[Key, Stored]:
    """What the statement `known_requests` found."""
    return {
        (row["id"], milliseconds(datetime.fromisoformat(row["created_at"]))): Stored(
            row["session_id"],
            row["outcome"],
            row["total_tokens"] or 0,
            row["resource_id"],
            row["proxy_key_id"],
        )
        for row in rows
    }


def request_keys(events: Iterable[StreamedEvent]) -> set[Key]:
    return {_key(e.event) for e in events if isinstance(e.event, RequestEvent)}


def dedupe(events: Sequence[StreamedEvent], stored: Mapping[Key, Stored]) -> Changes:
    """Drop events that change nothing, and compute the changes of the others."""
    kept = tuple(_once(events))
    if stored:
        kept = tuple(e for e in kept if not _already_stored(e, stored))
    requests = tuple([e.event for e in kept if isinstance(e.event, RequestEvent)])
    replaced: tuple[Key, ...] = ()
    fresh: Sequence[RequestEvent] = requests
    if stored:
        replaced = tuple(key for key in map(_key, requests) if key in stored)
        fresh = [r for r in requests if _key(r) not in stored]
    return Changes(
        kept,
        requests,
        _sessions(requests, stored),
        len(fresh),
        _gateways(kept, fresh),
        replaced,
        tuple((key[1], stored[key]) for key in replaced),
    )


def _sessions(
    requests: Iterable[RequestEvent], stored: Mapping[Key, Stored]
) -> tuple[SessionDelta, ...]:
    """Add up the requests of each session in order of time. A replaced row is
    subtracted."""
    deltas: dict[str, SessionDelta] = {}
    for request in sorted(requests, key=_order):
        before = stored.get(_key(request)) if stored else None
        if before and before.session_id:
            _count(deltas, before.session_id, request, -1, -before.total_tokens)
        if request.session_id:
            tokens = request.total_tokens or 0
            delta = _count(deltas, request.session_id, request, 1, tokens)
            delta.name = request.session_name or delta.name
            delta.last_resource_id = request.resource_id or delta.last_resource_id
    return tuple(deltas.values())


def _count(
    deltas: dict[str, SessionDelta],
    id_: str,
    request: RequestEvent,
    requests: int,
    tokens: int,
) -> SessionDelta:
    at_ms = request.created_at_ms
    delta = deltas.get(id_)
    if delta is None:
        delta = deltas[id_] = SessionDelta(id_, 0, 0, at_ms, at_ms)
    delta.requests += requests
    delta.total_tokens += tokens
    delta.last_seen_at_ms = at_ms
    return delta


def _gateways(
    events: Sequence[StreamedEvent], fresh: Sequence[RequestEvent]
) -> tuple[GatewayDelta, ...]:
    """Return the changes of each gateway. Reports may arrive in any order."""
    stored = Counter([request.gateway_id or "" for request in fresh])
    deltas = {id_: GatewayDelta(id_, count) for id_, count in stored.items()}
    for streamed in events:
        if isinstance(streamed.event, GatewayEvent):
            id_ = streamed.event.gateway_id
            _report(deltas.setdefault(id_, GatewayDelta(id_)), streamed.event)
    return tuple(deltas.values())


def _report(delta: GatewayDelta, event: GatewayEvent) -> None:
    seen_ms = delta.last_seen_at_ms
    if seen_ms is None or event.created_at_ms >= seen_ms:
        delta.last_seen_at_ms, delta.held = event.created_at_ms, event.held
    delta.started_at_ms = event.started_at_ms
    delta.accepted = max(event.accepted, delta.accepted)
    delta.ended = max(event.ended, delta.ended)
    delta.state = "closed" if "closed" in (event.state, delta.state) else event.state


_order = attrgetter("created_at_ms", "id")


def _key(request: RequestEvent) -> Key:
    return request.id, request.created_at_ms


def _once(events: Sequence[StreamedEvent]) -> Iterable[StreamedEvent]:
    """Keep one event per key: the first, unless a later one has a final outcome."""
    kept: dict[tuple[str, str, int], StreamedEvent] = {}
    for event in events:
        key = (event.kind, event.id, event.event.created_at_ms)
        first = kept.setdefault(key, event)
        if first is not event and _replaces(event, first):
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
