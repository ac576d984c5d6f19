"""Decodes captured bodies from their stream, and writes them to SQL."""

from collections.abc import Sequence
from typing import Protocol

import zstandard
from pydantic import ValidationError

from libs.common.contracts.events import (
    EVENT_VERSION,
    PACKED,
    PLAIN,
    PayloadEvent,
    StreamedEvent,
    StreamedPayload,
)
from libs.common.redis.capture_batches import BATCH_KIND
from libs.common.store.interface import ID_CHARS_MAX, DeadLetter
from services.ingest.decode import END_OF_TIME_MS, LARGEST, Fields, dead_letter

# An entry contains the bodies of many requests, so few entries are megabytes.
BATCH_SIZE = 8
LARGEST_DATA = 65_536
LARGEST_BODY = 67_108_864
DIRECTIONS = ("request", "response")


_compressor = zstandard.ZstdCompressor()


class _Malformed(Exception):
    """The entry cannot be stored. The message is the reason."""


def decode_payload(entry_id: str, fields: Fields) -> StreamedPayload | DeadLetter:
    """Decode the bodies of a request, or return a dead letter. A dead letter does not
    contain the bodies, because they may contain text that was not redacted."""
    try:
        event = _event(fields)
        bodies = {name: _body(event, name, fields) for name in DIRECTIONS}
        event = _packed(event, bodies)
    except _Malformed as error:
        return dead_letter(entry_id, fields, str(error))
    return StreamedPayload(
        entry_id=entry_id,
        id=event.request_id,
        kind="payload",
        event=event,
        bodies={name: body for name, body in bodies.items() if body is not None},
    )


def _event(fields: Fields) -> PayloadEvent:
    if fields.get(b"v") != b"%d" % EVENT_VERSION:
        raise _Malformed(f"unknown version; supported is {EVENT_VERSION}")
    if fields.get(b"kind") == BATCH_KIND:
        raise _Malformed("the batch of bodies cannot be decoded")
    if fields.get(b"kind") != b"payload":
        raise _Malformed("kind is not payload")
    data = fields.get(b"data", b"")
    if len(data) > LARGEST_DATA:
        raise _Malformed(f"data has {len(data)} bytes, more than {LARGEST_DATA}")
    try:
        # PostgreSQL rejects NUL characters, for example in a content coding.
        event = PayloadEvent.model_validate_json(data.replace(b"\\u0000", b""))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _Malformed(f"{where or 'data'}: {first['msg']}") from None
    _require_sane(event)
    return event


def _require_sane(event: PayloadEvent) -> None:
    if not 0 < len(event.request_id) <= ID_CHARS_MAX:
        raise _Malformed(
            f"request_id is empty or longer than {ID_CHARS_MAX} characters"
        )
    if not 0 <= event.created_at_ms < END_OF_TIME_MS:
        raise _Malformed("created_at_ms is out of range")
    for note in (event.request, event.response):
        if note is not None and not 0 <= note.original_bytes <= LARGEST:
            raise _Malformed("original_bytes is out of range")


def _body(event: PayloadEvent, name: str, fields: Fields) -> bytes | None:
    """Return the body that a note describes, or None if it was dropped."""
    note = getattr(event, name)
    if note is None or note.dropped is not None:
        return None
    body = fields.get(name.encode())
    if body is None:
        raise _Malformed(f"missing field: {name}")
    if len(body) > LARGEST_BODY:
        raise _Malformed(f"{name} has {len(body)} bytes, more than {LARGEST_BODY}")
    return body


def _packed(event: PayloadEvent, bodies: dict[str, bytes | None]) -> PayloadEvent:
    """Compress bodies in place; gateways send small ones uncompressed."""
    notes = {}
    for name, body in bodies.items():
        note = getattr(event, name)
        if body is None or not note.encoding.endswith(PLAIN):
            continue
        bodies[name] = _compressor.compress(body)
        encoding = note.encoding.removesuffix(PLAIN) + PACKED
        notes[name] = note.model_copy(update={"encoding": encoding})
    return event.model_copy(update=notes) if notes else event


class Bodies(Protocol):
    """The methods of a store that the sink uses."""

    async def write_payloads(self, payloads: Sequence[StreamedPayload]) -> int: ...

    async def write_dead_letters(self, letters: Sequence[DeadLetter]) -> int: ...


class PayloadSink:
    """Adapts the store to the sink of a consumer."""

    def __init__(self, store: Bodies) -> None:
        self._store = store

    async def write(self, events: Sequence[StreamedEvent]) -> int:
        payloads = [event for event in events if isinstance(event, StreamedPayload)]
        return await self._store.write_payloads(payloads)

    async def write_dead_letters(self, letters: Sequence[DeadLetter]) -> int:
        return await self._store.write_dead_letters(letters)
