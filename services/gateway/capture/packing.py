"""Prepares captured bodies for the payload stream: decompresses, redacts and
compresses them. Pure; runs in the capture thread.

Redaction fails closed: a body that cannot be parsed is dropped, and a note says
why."""

from collections.abc import Sequence

import msgspec
import zstandard

from libs.common.bodies.redaction import Redactor, Unreadable
from libs.common.contracts.events import PACKED, PLAIN
from libs.common.headers import Kinds
from libs.common.providers.key_echoes import NO_KEY, SentKey
from libs.common.redis.capture_batches import Note, Payload
from services.gateway.content.coding import decompressed

LEVEL = 1  # takes half the time of level 3, for a few percent more bytes
# Smaller bodies are sent uncompressed and compressed by ingest. Their cost is per
# body, and here it would compete with requests.
PACKED_FROM = 8_192  # bytes
LARGEST_ENTRY = 33_554_432  # bytes of both bodies, as sent
HEADER_CHARS = 200

DROPPED_UNOPENED = "cannot be decompressed, so it cannot be redacted"
DROPPED_UNREADABLE = "cannot be parsed, so it cannot be redacted"
DROPPED_TRUNCATED = "truncated, so it cannot be redacted"
DROPPED_LARGE = "too large for one stream entry"


class RawBody(msgspec.Struct):
    """A body as it was transmitted, up to a limit."""

    chunks: Sequence[bytes]
    kinds: Kinds
    original_bytes: int  # bytes, including those beyond the limit
    dropped: str | None = None


class RawPayload(msgspec.Struct):
    """The bodies of one request."""

    request_id: str
    created_at_ms: int
    request: RawBody
    response: RawBody | None
    sent: SentKey = NO_KEY  # hidden in the response


class Packer:
    """Packs captured bodies. Not thread-safe: it reuses one compressor."""

    def __init__(self, limit: int, redactor: Redactor) -> None:
        self._limit = limit
        self._redactor = redactor
        self._compressor = zstandard.ZstdCompressor(level=LEVEL)

    def pack(self, raw: RawPayload) -> Payload:
        payload = Payload(raw.request_id, raw.created_at_ms)
        payload.request, payload.request_body = self._packed(raw.request)
        if raw.response is not None:
            payload.response, payload.response_body = self._packed(
                raw.response, raw.sent
            )
        too_large = payload.size > LARGEST_ENTRY
        return without_bodies(payload, DROPPED_LARGE) if too_large else payload

    def _packed(
        self, raw: RawBody, sent: SentKey = NO_KEY
    ) -> tuple[Note, bytes | None]:
        note = Note(raw.original_bytes, dropped=raw.dropped)
        if raw.dropped is not None:
            return note, None
        content_type, coding = raw.kinds
        note.content_type = _text(content_type)
        wire = raw.chunks[0] if len(raw.chunks) == 1 else b"".join(raw.chunks)
        note.truncated = len(wire) < raw.original_bytes
        plain = decompressed(wire, coding, self._limit) if coding else wire
        if plain is None and self._redactor:
            note.dropped = DROPPED_UNOPENED
            return note, None
        if plain is None:
            # The coding is unknown or the data corrupt: keep the body as it came.
            note.encoding = f"{_text(coding)}, {PACKED}"
            return note, self._compressed(note, sent.masked(wire))
        plain = sent.masked(plain)
        if len(plain) > self._limit:
            note.truncated, plain = True, plain[: self._limit]
        if note.truncated and (begun := sent.begun(plain)):
            plain = plain[:-begun]  # the first bytes of a truncated key
        return self._finished(note, plain)

    def _finished(self, note: Note, plain: bytes) -> tuple[Note, bytes | None]:
        if self._redactor:
            try:
                plain = self._redacted(plain, note.content_type)
            except Unreadable:
                why = DROPPED_TRUNCATED if note.truncated else DROPPED_UNREADABLE
                note.dropped = why
                return note, None
        return note, self._compressed(note, plain)

    def _compressed(self, note: Note, body: bytes) -> bytes:
        if len(body) < PACKED_FROM:
            note.encoding = note.encoding.removesuffix(PACKED) + PLAIN
            return body
        return self._compressor.compress(body)

    def _redacted(self, plain: bytes, content_type: str | None) -> bytes:
        kind = (content_type or "").partition(";")[0].strip().lower()
        if kind == "text/event-stream":
            return self._redactor.events(plain)
        if kind == "application/jsonl":
            return self._redactor.lines(plain)
        return self._redactor.document(plain)


def without_bodies(payload: Payload, why: str) -> Payload:
    """Reduces a payload to a marker that says why its bodies are missing."""
    for note in (payload.request, payload.response):
        if note is not None:
            note.dropped = note.dropped or why
    payload.request_body = payload.response_body = None
    return payload


def _text(value: bytes | None) -> str | None:
    return value.decode("latin-1")[:HEADER_CHARS] if value else None
