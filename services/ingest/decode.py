"""Decodes a stream entry to an event, or to a dead letter with a reason. Pure.

Text is truncated and loses NUL characters, which PostgreSQL rejects, so that the ledger
still gets its row. Numbers outside of their range make the entry a dead letter."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from libs.common.contracts.events import (
    END_OF_TIME_MS,
    EVENT_VERSION,
    EVENTS,
    ID_CHARS_MAX,
    TEXT_CHARS,
    Event,
    Kind,
    RequestEvent,
    StreamedEvent,
)
from libs.common.store.dead_letters import content_id
from libs.common.store.interface import DeadLetter

Fields = Mapping[bytes, bytes]

FIELDS = frozenset({b"kind", b"id", b"v", b"data"})
KINDS: dict[bytes, Kind] = {kind.encode(): cast(Kind, kind) for kind in EVENTS}
VERSION = b"%d" % EVENT_VERSION
NUL = b"\\u0000"  # as written in JSON
MAX_DATA_BYTES = 1_048_576
MAX_ID_CHARS = 200
KEPT_DATA_CHARS = 65_536  # stored of a dead letter
# Gateways truncate session ids to the same length, so lookups match stored values.
INDEXED = frozenset({"session_id", "resource_id", "response_id", "request_id"})

GATEWAY_ID = re.compile(rb'"gateway_id": *"([!#-\[\]-~]{1,200})"')

_KINDS: dict[bytes, tuple[Kind, msgspec.json.Decoder[Event]]] = {
    name: (kind, msgspec.json.Decoder(EVENTS[kind])) for name, kind in KINDS.items()
}


class Malformed(Exception):
    """The entry cannot be stored. The message is the reason."""


def decode_entry(entry_id: str, fields: Fields) -> Sequence[StreamedEvent | DeadLetter]:
    """Decode an entry of the telemetry stream, which has one event."""
    return (decode(entry_id, fields),)


def decode(entry_id: str, fields: Fields) -> StreamedEvent | DeadLetter:
    """Decode an entry. Return a dead letter if its version, kind or data is unknown or
    invalid, or if a number does not fit into its column."""
    return _plain(entry_id, fields) or _examined(entry_id, fields)


def _plain(entry_id: str, fields: Fields) -> StreamedEvent | None:
    """The event of an entry that needs no change and breaks no rule, as nearly all do.
    The steps that say what is wrong take longer."""
    try:
        kind, decoder = _KINDS[fields[b"kind"]]
        data, id_ = fields[b"data"], fields[b"id"].decode()
        if (
            fields[b"v"] != VERSION
            or not 0 < len(id_) <= MAX_ID_CHARS
            or "\0" in id_
            or len(data) > MAX_DATA_BYTES
            or NUL in data
        ):
            return None
        event = decoder.decode(data)
    except (KeyError, ValueError, RecursionError):
        return None
    if isinstance(event, RequestEvent) and event.id != id_:
        return None
    return StreamedEvent(entry_id, id_, kind, event, data)


def _examined(entry_id: str, fields: Fields) -> StreamedEvent | DeadLetter:
    """The event of an entry whose text is too long or has NUL characters, or a dead
    letter that says what is wrong."""
    try:
        kind = _kind(fields)
        id_ = _id(fields)
        event = _shortened_event(kind, fields[b"data"])
        _require_own_id(id_, event)
    except Malformed as error:
        return dead_letter(entry_id, fields, str(error))
    return StreamedEvent(entry_id, id_, kind, event)


def letter_fields(event: StreamedEvent) -> Fields:
    """The fields of a dead letter for an event that was decoded."""
    return {
        b"kind": event.kind.encode(),
        b"id": event.id.encode(),
        b"v": VERSION,
        b"data": event.json,
    }


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
        # Whoever writes to the stream may choose the id.
        created_at_ms=min(int(entry_id.partition("-")[0]), END_OF_TIME_MS - 1),
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
        raise Malformed(f"missing field: {names}")
    version = _text(fields[b"v"], 20)
    if version != str(EVENT_VERSION):
        raise Malformed(f"unknown version {version!r}; supported is {EVENT_VERSION}")
    kind = _text(fields[b"kind"], 40)
    if kind not in EVENTS:
        raise Malformed(f"unknown kind {kind!r}")
    return cast(Kind, kind)


def _id(fields: Fields) -> str:
    try:
        id_ = fields[b"id"].decode()
    except UnicodeDecodeError:
        raise Malformed("id is not UTF-8") from None
    if not 0 < len(id_) <= MAX_ID_CHARS or "\0" in id_:
        raise Malformed(
            f"id is empty, contains NUL, or exceeds {MAX_ID_CHARS} characters"
        )
    return id_


def _shortened_event(kind: Kind, data: bytes) -> Event:
    if len(data) > MAX_DATA_BYTES:
        raise Malformed(f"data has {len(data)} bytes, more than {MAX_DATA_BYTES}")
    try:
        shortened = _shortened(msgspec.json.decode(data))
        return msgspec.convert(shortened, EVENTS[kind])
    except (ValueError, RecursionError) as error:
        raise Malformed(f"data: {error}") from None


def _shortened(value: Any, name: str = "") -> Any:
    """JSON data without NUL, its text truncated to the limits of columns and indexes.
    Minted ids that are too long to be looked up are left out; truncated, they would be
    different ids."""
    if isinstance(value, str):
        limit = ID_CHARS_MAX if name in INDEXED else TEXT_CHARS
        return value.replace("\0", "")[:limit]
    if isinstance(value, dict):
        return {key: _shortened(each, key) for key, each in value.items()}
    if isinstance(value, list):
        listed = [_shortened(each) for each in value]
        if name == "minted":
            return [i for i in listed if isinstance(i, str) and len(i) <= ID_CHARS_MAX]
        return listed
    return value


def _require_own_id(id_: str, event: Event) -> None:
    """Check that the entry of a request has its id, which is the primary key."""
    if isinstance(event, RequestEvent) and event.id != id_:
        raise Malformed("id differs from the id of the request")
