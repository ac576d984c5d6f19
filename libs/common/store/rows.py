"""Events as rows: SQL column names, times as datetimes. Pure."""

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
from libs.common.store.dedupe import GatewayGain, SessionGain
from libs.common.store.interface import DeadLetter

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CANDIDATES = TypeAdapter(tuple[Candidate, ...])
UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def instant(ms: int) -> datetime:
    """Exact, where fromtimestamp would round."""
    return EPOCH + timedelta(milliseconds=ms)


def milliseconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta(milliseconds=1)


def iso(at: datetime) -> str:
    """UTC with milliseconds and Z; sorts as time does."""
    text = at.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def iso_ms(ms: int) -> str:
    """`iso` of Unix milliseconds, at a third of the cost."""
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
    del fields["minted"]  # a table of their own
    return _timed(fields)


def minted_rows(events: Iterable[RequestEvent]) -> Iterator[Row]:
    """A row for each request with ids that somebody can be asked for. Without an
    account the resource is one of its own, as in the catalogue."""
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
    """Whether a stored value can be equal to it. None can with a NUL character or
    a lone surrogate in it, for which a database only raises."""
    return UNSTORABLE.search(text) is None


def decision_row(id_: str, event: DecisionEvent) -> Row:
    return _timed(
        {**vars(event), "id": id_, "candidates": candidates_json(event).decode()}
    )


def candidates_json(event: DecisionEvent) -> bytes:
    return CANDIDATES.dump_json(event.candidates)


def session_row(gain: SessionGain) -> Row:
    return {
        "id": gain.id,
        "name": gain.name,
        "first_seen_at": instant(gain.first_ms),
        "last_seen_at": instant(gain.last_ms),
        "requests": gain.requests,
        "total_tokens": gain.total_tokens,
        "last_resource_id": gain.resource_id,
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


def gateway_row(gain: GatewayGain) -> Row:
    return {
        "id": gain.id,
        "started_at": None if gain.started_ms is None else instant(gain.started_ms),
        "last_seen_at": None if gain.seen_ms is None else instant(gain.seen_ms),
        "accepted": gain.accepted,
        "ended": gain.ended,
        "held": gain.held,
        "state": gain.state,
        "stored": gain.stored,
    }


def _timed(fields: Mapping[str, Any]) -> Row:
    """`created_at_ms` becomes `created_at`; durations keep their `_ms`."""
    return {
        name.removesuffix("_ms") if name.endswith("_at_ms") else name: (
            instant(value) if name.endswith("_at_ms") else value
        )
        for name, value in fields.items()
    }
