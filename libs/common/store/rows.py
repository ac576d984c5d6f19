"""Converts events to rows: SQL column names, times as datetimes. Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter

from libs.common.contracts.events import (
    Candidate,
    DecisionEvent,
    RequestEvent,
    Row,
    StreamedEvent,
)
from libs.common.store.dedupe import GatewayDelta, SessionDelta
from libs.common.store.interface import DeadLetter

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CANDIDATES = TypeAdapter(tuple[Candidate, ...])
UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def instant(ms: int) -> datetime:
    """Convert Unix milliseconds exactly; fromtimestamp would round."""
    return EPOCH + timedelta(milliseconds=ms)


def milliseconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta(milliseconds=1)


def iso(at: datetime) -> str:
    """Format as ISO 8601 in UTC with milliseconds and Z; sorts by time."""
    text = at.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def iso_ms(ms: int) -> str:
    """Format Unix milliseconds as `iso` does, at a third of the cost."""
    seconds, rest = divmod(ms, 1000)
    return f"{_second(seconds)}.{rest:03}Z"


@lru_cache(4096)
def _second(seconds: int) -> str:
    return (EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")


def event_row(streamed: StreamedEvent) -> Row:
    return {
        "id": streamed.id,
        "kind": streamed.kind,
        "created_at": instant(streamed.event.created_at_ms),
        "data": streamed.json.decode(),
    }


def request_row(event: RequestEvent) -> Row:
    fields = dict(vars(event))
    del fields["minted"]  # has its own table
    return _timed(fields)


def minted_rows(events: Iterable[RequestEvent]) -> Iterator[Row]:
    """Yield a row for each request with minted ids and a resource. A resource without
    an account is an account of its own, as in the catalogue."""
    for event in events:
        if event.minted and event.resource_id:
            yield {
                "ids": event.minted,
                "created_at": instant(event.created_at_ms),
                "request_id": event.id,
                "resource_id": event.resource_id,
                "account_id": event.account_id or event.resource_id,
                "tenant": event.tenant,
                "repeated": event.repeats,
            }


def storable(text: str) -> bool:
    """Whether a stored value can equal `text`. Databases reject NUL characters and lone
    surrogates."""
    return UNSTORABLE.search(text) is None


def decision_row(id_: str, event: DecisionEvent) -> Row:
    return _timed(
        {**vars(event), "id": id_, "candidates": candidates_json(event).decode()}
    )


def candidates_json(event: DecisionEvent) -> bytes:
    return CANDIDATES.dump_json(event.candidates)


def session_row(delta: SessionDelta) -> Row:
    return {
        "id": delta.id,
        "name": delta.name,
        "first_seen_at": instant(delta.first_ms),
        "last_seen_at": instant(delta.last_ms),
        "requests": delta.requests,
        "total_tokens": delta.total_tokens,
        "last_resource_id": delta.resource_id,
    }


def dead_letter_row(letter: DeadLetter) -> Row:
    return {
        "id": letter.id,
        "entry_id": letter.entry_id,
        "event_id": letter.event_id,
        "kind": letter.kind,
        "reason": letter.reason,
        "data": letter.data,
        "created_at": instant(letter.created_at_ms),
        "gateway_id": letter.gateway_id,
    }


def gateway_row(delta: GatewayDelta) -> Row:
    return {
        "id": delta.id,
        "started_at": None if delta.started_ms is None else instant(delta.started_ms),
        "last_seen_at": None if delta.seen_ms is None else instant(delta.seen_ms),
        "accepted": delta.accepted,
        "ended": delta.ended,
        "held": delta.held,
        "state": delta.state,
        "stored": delta.stored,
    }


def _timed(fields: Mapping[str, Any]) -> Row:
    """Convert `created_at_ms` to `created_at`; durations keep `_ms`."""
    return {
        name.removesuffix("_ms") if name.endswith("_at_ms") else name: (
            instant(value) if name.endswith("_at_ms") else value
        )
        for name, value in fields.items()
    }
