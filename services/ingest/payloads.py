"""Decodes captured bodies from their stream, and writes them to SQL."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import zstandard

from libs.common.contracts.events import (
    END_OF_TIME_MS,
    EVENT_VERSION,
    ID_CHARS_MAX,
    LARGEST,
    TEXT_CHARS,
    StreamedEvent,
)
from libs.common.contracts.payloads import PACKED, PLAIN, Note, Payload
from libs.common.redis.capture_batches import BATCH_KIND, unpacked
from libs.common.store.interface import DeadLetter, Write
from services.ingest.decode import (
    VERSION,
    Fields,
    Malformed,
    dead_letter,
    letter_fields,
)

# An entry contains the bodies of many requests, some 32 KB, or a single large one.
BATCH_SIZE = 64
FIRST_READ = 8
LARGEST_BODY = 67_108_864

_compressor = zstandard.ZstdCompressor()


def decode_payloads(
    entry_id: str, fields: Fields
) -> Sequence[StreamedEvent | DeadLetter]:
    """Decode an entry to payloads, or to dead letters. A dead letter does not contain
    the bodies, because they may contain text that was not redacted."""
    kept = {name: fields[name] for name in (b"kind", b"v") if name in fields}
    # Without it, all entries that cannot be decoded would be one letter.
    kept[b"id"] = entry_id.encode()
    if fields.get(b"v") != VERSION:
        why = f"unknown version; supported is {EVENT_VERSION}"
        return (dead_letter(entry_id, kept, why),)
    if fields.get(b"kind") != BATCH_KIND:
        return (dead_letter(entry_id, kept, f"kind is not {BATCH_KIND.decode()}"),)
    try:
        payloads = unpacked(fields.get(b"data", b""))
    except ValueError:
        why = "the batch of bodies cannot be decoded"
        return (dead_letter(entry_id, kept, why),)
    return [_checked(entry_id, payload) for payload in payloads]


def _checked(entry_id: str, payload: Payload) -> StreamedEvent | DeadLetter:
    _clean(payload)
    streamed = StreamedEvent(entry_id, payload.request_id, "payload", payload)
    try:
        _require_sane(payload)
        for direction in ("request", "response"):
            _prepare(payload, direction)
    except Malformed as error:
        return dead_letter(entry_id, letter_fields(streamed), str(error))
    return streamed


def _clean(payload: Payload) -> None:
    """Remove NUL characters, which PostgreSQL rejects, and truncate text."""
    payload.request_id = payload.request_id.replace("\0", "")
    for note in (payload.request, payload.response):
        if note is not None:
            note.encoding = _text(note.encoding)
            note.content_type = note.content_type and _text(note.content_type)
            note.dropped = note.dropped and _text(note.dropped)


def _text(value: str) -> str:
    return value.replace("\0", "")[:TEXT_CHARS]


def _require_sane(payload: Payload) -> None:
    if not 0 < len(payload.request_id) <= ID_CHARS_MAX:
        raise Malformed(f"request_id is empty or longer than {ID_CHARS_MAX} characters")
    if not 0 <= payload.created_at_ms < END_OF_TIME_MS:
        raise Malformed("created_at_ms is out of range")
    for note in (payload.request, payload.response):
        if note is not None and not 0 <= note.original_bytes <= LARGEST:
            raise Malformed("original_bytes is out of range")


def _prepare(payload: Payload, direction: str) -> None:
    """Compress a body that the gateway left uncompressed, as it does with small
    ones. A body without a note, or with one that says it was dropped, is removed."""
    note: Note | None = getattr(payload, direction)
    body: bytes | None = getattr(payload, f"{direction}_body")
    if note is None or note.dropped is not None:
        body = None
    elif body is None:
        raise Malformed(f"missing body: {direction}")
    elif len(body) > LARGEST_BODY:
        raise Malformed(f"{direction} has {len(body)} bytes, more than {LARGEST_BODY}")
    elif note.encoding.endswith(PLAIN):
        body = _compressor.compress(body)
        note.encoding = note.encoding.removesuffix(PLAIN) + PACKED
    setattr(payload, f"{direction}_body", body)


class Bodies(Protocol):
    """The methods of a store that the sink uses."""

    async def write_payloads(self, payloads: Sequence[Payload]) -> int: ...

    async def write_dead_letters(self, letters: Sequence[DeadLetter]) -> int: ...


class PayloadSink:
    """Adapts the store to the sink of a consumer."""

    def __init__(self, store: Bodies) -> None:
        self._store = store

    def prepare(self, events: Sequence[StreamedEvent]) -> Write:
        found = [event.event for event in events]
        payloads = [payload for payload in found if isinstance(payload, Payload)]
        return partial(self._store.write_payloads, payloads)

    async def write_dead_letters(self, letters: Sequence[DeadLetter]) -> int:
        return await self._store.write_dead_letters(letters)
