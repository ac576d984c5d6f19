"""Captured bodies from their stream to SQL. What decodes an entry is pure."""

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

# An entry holds the bodies of many requests: a batch of few is one of megabytes.
BATCH_SIZE = 8
LARGEST_DATA = 65_536
LARGEST_BODY = 67_108_864
DIRECTIONS = ("request", "response")


_compressor = zstandard.ZstdCompressor()


class _Spoiled(Exception):
    """Why an entry is poison."""


def decode_payload(entry_id: str, fields: Fields) -> StreamedPayload | DeadLetter:
    """The entry's bodies, or poison. Bodies of poison are not kept: they may hold
    what redaction did not find."""
    try:
        event = _event(fields)
        bodies = {name: _body(event, name, fields) for name in DIRECTIONS}
        event = _packed(event, bodies)
    except _Spoiled as error:
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
        raise _Spoiled(f"unknown version, this one reads {EVENT_VERSION}")
    if fields.get(b"kind") == BATCH_KIND:
        raise _Spoiled("a batch of bodies that cannot be read")
    if fields.get(b"kind") != b"payload":
        raise _Spoiled("no payload")
    data = fields.get(b"data", b"")
    if len(data) > LARGEST_DATA:
        raise _Spoiled(f"{len(data)} bytes, more than {LARGEST_DATA}")
    try:
        # A NUL in a name of a coding, say, is nothing that Postgres could hold.
        event = PayloadEvent.model_validate_json(data.replace(b"\\u0000", b""))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _Spoiled(f"{where or 'data'}: {first['msg']}") from None
    _require_sane(event)
    return event


def _require_sane(event: PayloadEvent) -> None:
    if not 0 < len(event.request_id) <= ID_CHARS_MAX:
        raise _Spoiled(f"request_id is empty or longer than {ID_CHARS_MAX}")
    if not 0 <= event.created_at_ms < END_OF_TIME_MS:
        raise _Spoiled("created_at_ms is out of range")
    for note in (event.request, event.response):
        if note is not None and not 0 <= note.original_bytes <= LARGEST:
            raise _Spoiled("original_bytes is out of range")


def _body(event: PayloadEvent, name: str, fields: Fields) -> bytes | None:
    """What the note speaks of; None for one that was dropped."""
    note = getattr(event, name)
    if note is None or note.dropped is not None:
        return None
    body = fields.get(name.encode())
    if body is None:
        raise _Spoiled(f"missing field: {name}")
    if len(body) > LARGEST_BODY:
        raise _Spoiled(f"{name} has {len(body)} bytes, more than {LARGEST_BODY}")
    return body


def _packed(event: PayloadEvent, bodies: dict[str, bytes | None]) -> PayloadEvent:
    """The same with all bodies compressed: gateways leave that for small ones to us."""
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
    """What is needed of the store."""

    async def write_payloads(self, payloads: Sequence[StreamedPayload]) -> int: ...

    async def write_dead_letters(self, letters: Sequence[DeadLetter]) -> int: ...


class PayloadSink:
    """The store as the consumer knows it."""

    def __init__(self, store: Bodies) -> None:
        self._store = store

    async def write(self, events: Sequence[StreamedEvent]) -> int:
        payloads = [event for event in events if isinstance(event, StreamedPayload)]
        return await self._store.write_payloads(payloads)

    async def write_dead_letters(self, letters: Sequence[DeadLetter]) -> int:
        return await self._store.write_dead_letters(letters)
