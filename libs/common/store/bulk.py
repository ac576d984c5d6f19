"""Converts a batch of events to rows for each table. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

from libs.common.contracts.events import (
    DecisionEvent,
    RequestEvent,
    Row,
    StreamedEvent,
    encode,
)
from libs.common.store.dedupe import Changes
from libs.common.store.proxy_keys import uses
from libs.common.store.rollups import Rollups
from libs.common.store.rows import iso_ms, row_of

Plain = tuple[Any, ...]


class Form(NamedTuple):
    """How a database accepts times and JSON."""

    at: Callable[[int], Any]  # a time, from Unix milliseconds
    json: Callable[[bytes], Any]


TEXT = Form(at=iso_ms, json=bytes.decode)

# Fields of the event are columns of the table in the same order, except the three
# that come first, and `minted`, which has its own table.
APART = {"id", "created_at_ms", "completed_at_ms", "minted"}
_REST = tuple(f for f in RequestEvent.__struct_fields__ if f not in APART)
_rest_of_request = attrgetter(*_REST)
# The columns of each table in the order of its rows.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "events": ("id", "kind", "created_at", "data"),
    "requests": ("id", "created_at", "completed_at", *_REST),
    "decisions": (
        *("id", "request_id", "attempt", "created_at", "session_id", "pool_id"),
        *("resource_id", "reason", "candidates", "degraded", "cause", "waited_ms"),
    ),
    "minted_ids": (
        *("id", "created_at", "request_id", "resource_id", "account_id"),
        *("tenant", "repeated"),
    ),
}


def tables(changes: Changes, form: Form) -> Iterator[tuple[str, list[Plain]]]:
    """Return the rows of each table; omit tables without rows."""
    groups = {
        "events": [_event(event, form) for event in changes.events],
        "requests": [_request(event, form) for event in changes.requests],
        "decisions": [
            _decision(streamed.id, streamed.event, form)
            for streamed in changes.events
            if isinstance(streamed.event, DecisionEvent)
        ],
        "minted_ids": _minted(changes.requests, form),
    }
    return ((name, rows) for name, rows in groups.items() if rows)


def deltas(changes: Changes, rollups: Rollups) -> Iterator[tuple[str, Iterable[Row]]]:
    """Return the statements that add up what changed, with their rows."""
    yield "put_sessions", map(row_of, changes.sessions)
    yield "put_gateways", map(row_of, changes.gateways)
    yield "touch_proxy_keys", uses(changes.requests)
    yield "put_rollups", rollups.rows(changes)


def _event(streamed: StreamedEvent, form: Form) -> Plain:
    at = form.at(streamed.event.created_at_ms)
    return streamed.id, streamed.kind, at, form.json(streamed.json)


def _request(event: RequestEvent, form: Form) -> Plain:
    return (
        event.id,
        form.at(event.created_at_ms),
        form.at(event.completed_at_ms),
        *_rest_of_request(event),
    )


def _decision(id_: str, event: DecisionEvent, form: Form) -> Plain:
    return (
        id_,
        event.request_id,
        event.attempt,
        form.at(event.created_at_ms),
        event.session_id,
        event.pool_id,
        event.resource_id,
        event.reason,
        form.json(encode(event.candidates)),
        event.degraded,
        event.cause,
        event.waited_ms,
    )


def _minted(requests: Iterable[RequestEvent], form: Form) -> list[Plain]:
    """Return a row for each minted id with a known resource. Of duplicates with the
    same time, the first counts, as in SQL."""
    rows: dict[tuple[str, int], Plain] = {}
    for event in requests:
        resource = event.resource_id
        if not event.minted or not resource:
            continue
        at, account = form.at(event.created_at_ms), event.account_id or resource
        for id_ in event.minted:
            key = id_, event.created_at_ms
            if key not in rows:
                tenant = event.tenant, event.repeats
                rows[key] = (id_, at, event.id, resource, account, *tenant)
    return list(rows.values())
