"""Decodes a stream entry to an event, or to a dead letter with a reason. Pure.

Text is truncated and loses NUL characters, which PostgreSQL rejects, so that the ledger
still gets its row. Numbers outside of their range make the entry a dead letter."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, cast

from pydantic import ValidationError

from libs.common.contracts.events import (
    EVENT_VERSION,
    EVENTS,
    Event,
    Kind,
    RequestEvent,
    StreamedEvent,
)
from libs.common.store.dead_letters import content_id
from libs.common.store.interface import ID_CHARS_MAX, DeadLetter

Fields = Mapping[bytes, bytes]

FIELDS = frozenset({b"kind", b"id", b"v", b"data"})
KINDS: dict[bytes, Kind] = {kind.encode(): cast(Kind, kind) for kind in EVENTS}
VERSION = b"%d" % EVENT_VERSION
NUL = b"\\u0000"  # as written in JSON
MAX_DATA_BYTES = 1_048_576
MAX_ID_CHARS = 200
KEPT_DATA_CHARS = 65_536  # stored of a dead letter
# An index row of PostgreSQL has at most 2704 bytes, and a character up to four.
# Gateways truncate session ids to the same length, so lookups match stored values.
INDEXED_CHARS = ID_CHARS_MAX
INDEXED = frozenset({"session_id", "resource_id", "response_id", "request_id"})
TEXT_CHARS = 8_000
LARGEST = 2**53 - 1  # the largest integer that JSON readers agree on; fits into bigint
LARGEST_SMALL = 2**31 - 1
SMALL = frozenset({"status_code", "attempts", "attempt"})
NUMBERS = (int, float)
TEXT = (str, str | None)
FIGURE = (int, int | None, float, float | None)
END_OF_TIME_MS = 253_402_300_800_000  # the year 10000


GATEWAY_ID = re.compile(rb'"gateway_id": *"([!#-\[\]-~]{1,200})"')


class _Read(NamedTuple):
    """Getters for the bounded fields of an event class, one for each kind of bound."""

    texts: Callable[[Event], tuple[Any, ...]]
    figures: Callable[[Event], tuple[Any, ...]]
    times: Callable[[Event], tuple[Any, ...]]

    @classmethod
    def of(cls, contract: type[Event]) -> "_Read":
        types = {name: f.annotation for name, f in contract.model_fields.items()}
        texts = [name for name, type_ in types.items() if type_ in TEXT]
        figures = [name for name, type_ in types.items() if type_ in FIGURE]
        times = [name for name in figures if name.endswith("_at_ms")]
        return cls(
            _getter(texts), _getter([n for n in figures if n not in times]),
            _getter(times),
        )  # fmt: skip


def _getter(names: Sequence[str]) -> Callable[[Event], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda event: tuple(getattr(event, name) for name in names)


PLAIN: dict[type[Event], _Read] = {
    contract: _Read.of(contract) for contract in EVENTS.values()
}


class _Malformed(Exception):
    """The entry cannot be stored. The message is the reason."""


def decode(entry_id: str, fields: Fields) -> StreamedEvent | DeadLetter:
    """Decode an entry. Return a dead letter if its version, kind or data is unknown or
    invalid, or if a number does not fit into its column."""
    try:
        kind = _kind(fields)
        id_ = _id(fields)
        read = _event(kind, fields[b"data"])
        event = read if _plain(read) else _bounded(_with_short_ids(read))
        _require_own_id(id_, event)
    except _Malformed as error:
        return dead_letter(entry_id, fields, str(error))
    data = fields[b"data"]
    untouched = event is read and NUL not in data
    return StreamedEvent(entry_id, id_, kind, event, data if untouched else None)


def dead_letter(entry_id: str, fields: Fields, reason: str) -> DeadLetter:
    """Convert an entry to a dead letter, which can always be stored. Its id is a hash
    of its content, so a replay has the same id."""
    return DeadLetter(
        id=content_id(fields),
        entry_id=entry_id,
        event_id=_text(fields.get(b"id"), MAX_ID_CHARS),
        kind=_text(fields.get(b"kind"), MAX_ID_CHARS),
        reason=reason.replace("\0", "")[:TEXT_CHARS],
        data=_text(fields.get(b"data", b""), KEPT_DATA_CHARS) or "",
        created_at_ms=int(entry_id.partition("-")[0]),
        gateway_id=_gateway_of(fields),
    )


def _gateway_of(fields: Fields) -> str | None:
    """Find the gateway id in the data, because its ledger counts dead requests."""
    found = GATEWAY_ID.search(fields.get(b"data", b""))
    return found[1].decode() if found else None


def _text(value: bytes | None, chars: int) -> str | None:
    if value is None:
        return None
    return value.decode(errors="backslashreplace").replace("\0", "")[:chars]


def _kind(fields: Fields) -> Kind:
    known = KINDS.get(fields.get(b"kind", b""))
    if known and fields.get(b"v") == VERSION and b"id" in fields and b"data" in fields:
        return known
    missing = FIELDS - fields.keys()
    if missing:
        names = ", ".join(sorted(name.decode() for name in missing))
        raise _Malformed(f"missing field: {names}")
    version = _text(fields[b"v"], 20)
    if version != str(EVENT_VERSION):
        raise _Malformed(f"unknown version {version!r}; supported is {EVENT_VERSION}")
    kind = _text(fields[b"kind"], 40)
    if kind not in EVENTS:
        raise _Malformed(f"unknown kind {kind!r}")
    return cast(Kind, kind)


def _id(fields: Fields) -> str:
    try:
        id_ = fields[b"id"].decode()
    except UnicodeDecodeError:
        raise _Malformed("id is not UTF-8") from None
    if not 0 < len(id_) <= MAX_ID_CHARS or "\0" in id_:
        raise _Malformed(
            f"id is empty, contains NUL, or exceeds {MAX_ID_CHARS} characters"
        )
    return id_


def _event(kind: Kind, data: bytes) -> Event:
    if len(data) > MAX_DATA_BYTES:
        raise _Malformed(f"data has {len(data)} bytes, more than {MAX_DATA_BYTES}")
    contract = EVENTS[kind]
    try:
        if NUL not in data:
            return contract.model_validate_json(data)
        contract.model_validate_json(data)  # json.loads alone would be less strict
        return contract.model_validate_json(json.dumps(_without_nul(json.loads(data))))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _Malformed(f"{where or 'data'}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise _Malformed(f"data: {error}") from None


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {_without_nul(k): _without_nul(v) for k, v in value.items()}
    return value


def _with_short_ids(event: Event) -> Event:
    """Drop minted ids that are too long to be looked up; truncated, they would be
    different ids."""
    if not isinstance(event, RequestEvent):
        return event
    short = tuple(id_ for id_ in event.minted if len(id_) <= ID_CHARS_MAX)
    if len(short) == len(event.minted):
        return event
    return event.model_copy(update={"minted": short})


def _plain(event: Event) -> bool:
    """Whether all fields are within conservative bounds, as in almost every event.
    Costs a fraction of checking each field against its own bound."""
    read = PLAIN[type(event)]
    figures = [figure for figure in read.figures(event) if figure is not None]
    return (
        all(0 <= at < END_OF_TIME_MS for at in read.times(event))
        # An infinity or NaN makes the sum compare false.
        and (not figures or (min(figures) >= 0 and sum(figures) <= LARGEST_SMALL))
        and max(map(len, filter(None, read.texts(event)))) <= INDEXED_CHARS
        and all(len(id_) <= ID_CHARS_MAX for id_ in _minted(event))
    )


def _minted(event: Event) -> Sequence[str]:
    return event.minted if isinstance(event, RequestEvent) else ()


def _bounded(event: Event) -> Event:
    """Truncate text to the limits of columns and indexes, and check numbers."""
    cut: dict[str, str] = {}
    for name, value in vars(event).items():
        if value is None:
            continue
        if isinstance(value, str):
            limit = INDEXED_CHARS if name in INDEXED else TEXT_CHARS
            if len(value) > limit:
                cut[name] = value[:limit]
        elif isinstance(value, NUMBERS):
            _require_sane(name, value)
    return event.model_copy(update=cut) if cut else event


def _require_sane(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise _Malformed(f"{name} is not a finite number")
    if name.endswith("_at_ms"):
        low, high = 0, END_OF_TIME_MS - 1
    else:
        high = LARGEST_SMALL if name in SMALL else LARGEST
        low = -high
    if not low <= value <= high:
        raise _Malformed(f"{name} is out of range: {value}")


def _require_own_id(id_: str, event: Event) -> None:
    """Check that the entry of a request has its id, which is the primary key."""
    if isinstance(event, RequestEvent) and event.id != id_:
        raise _Malformed("id differs from the id of the request")
