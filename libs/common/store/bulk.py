"""Converts a batch of new events to rows for each table, in the column order of the
`add_*.sql` statements. Pure."""

from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Any, NamedTuple

from libs.common.contracts.events import DecisionEvent, RequestEvent, StreamedEvent
from libs.common.store.dedupe import Changes
from libs.common.store.rows import candidates_json

Plain = tuple[Any, ...]


class Form(NamedTuple):
    """How a database accepts times and JSON."""

    at: Callable[[int], Any]  # a time, from Unix milliseconds
    json: Callable[[bytes], Any]


# Fields of the event are columns of the table in the same order, except the three
# that come first, and `minted`, which has its own table.
APART = {"id", "created_at_ms", "completed_at_ms", "minted"}
_rest_of_request = attrgetter(*(f for f in RequestEvent.model_fields if f not in APART))


def tables(changes: Changes, form: Form) -> Iterator[tuple[str, Iterable[Plain]]]:
    """Return the name of each statement with its rows; omit those without rows."""
    groups = {
        "add_events": [_event(event, form) for event in changes.events],
        "add_requests": [_request(event, form) for event in changes.requests],
        "add_decisions": [
            _decision(streamed.id, streamed.event, form)
            for streamed in changes.events
            if isinstance(streamed.event, DecisionEvent)
        ],
        "add_minted_ids": _minted(changes.requests, form),
    }
    return ((name, rows) for name, rows in groups.items() if rows)


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
        form.json(candidates_json(event)),
        event.degraded,
        event.cause,
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
