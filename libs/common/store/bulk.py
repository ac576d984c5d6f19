"""A settled batch as plain rows, of which nothing is stored yet: what of it goes to
which table, in the order of the `add_*.sql` statements. Pure."""

from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Any, NamedTuple

from libs.common.contracts.events import DecisionEvent, RequestEvent, StreamedEvent
from libs.common.store.dedupe import Settled
from libs.common.store.rows import candidates_json

Plain = tuple[Any, ...]


class Form(NamedTuple):
    """How a database takes what is no text or number."""

    at: Callable[[int], Any]  # a time, from Unix milliseconds
    json: Callable[[bytes], Any]


# The contract's fields are the table's columns, in its order, but for the three
# that go before and for `minted`, which has a table of its own.
APART = {"id", "created_at_ms", "completed_at_ms", "minted"}
_rest_of_request = attrgetter(*(f for f in RequestEvent.model_fields if f not in APART))


def tables(settled: Settled, form: Form) -> Iterator[tuple[str, Iterable[Plain]]]:
    """Each statement with its rows; those without rows are left out."""
    groups = {
        "add_events": [_event(event, form) for event in settled.events],
        "add_requests": [_request(event, form) for event in settled.requests],
        "add_decisions": [
            _decision(streamed.id, streamed.event, form)
            for streamed in settled.events
            if isinstance(streamed.event, DecisionEvent)
        ],
        "add_minted_ids": _minted(settled.requests, form),
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
    """A row for each id that somebody can be asked for, once: an answer may tell
    one twice. The first request to tell it at that moment counts, as in SQL."""
    rows: dict[tuple[str, int], Plain] = {}
    for event in requests:
        resource = event.resource_id
        if not event.minted or not resource:
            continue
        at, account = form.at(event.created_at_ms), event.account_id or resource
        for id_ in event.minted:
            key = id_, event.created_at_ms
            if key not in rows:
                whose = event.tenant, event.repeats
                rows[key] = (id_, at, event.id, resource, account, *whose)
    return list(rows.values())
