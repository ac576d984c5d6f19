"""Prepares captured bodies for the payload stream: decompresses, redacts and
compresses them. Pure; runs in the capture thread.

Redaction fails closed: a body that cannot be parsed is dropped, and a note says
why."""

from functools import lru_cache

import zstandard

from libs.common.bodies.redaction import Redactor, Unreadable
from libs.common.contracts.payloads import PACKED, PLAIN, Note, Payload
from libs.common.headers import NO_KINDS, Kinds
from libs.common.providers.key_echoes import NO_KEY, SentKey
from services.gateway.capture.capture import Capture
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


class Packer:
    """Packs captured bodies. Not thread-safe: it reuses one compressor."""

    def __init__(self, limit: int, redactor: Redactor) -> None:
        self._limit = limit
        self._redactor = redactor
        self._redacts = bool(redactor)
        # A body with fewer bytes is sent as it is, unless it has to be changed.
        self._as_it_is = 0 if redactor else min(PACKED_FROM, limit + 1)
        self._compressor = zstandard.ZstdCompressor(level=LEVEL)

    def pack(self, capture: Capture) -> Payload:
        """The payload of a request that ended."""
        request, request_body = self._packed(
            capture.request_bytes,
            capture.request_dropped,
            capture.request_body[: self._limit],
            capture.request_kinds,
        )
        response = response_body = None
        kinds = capture.response_kinds
        if kinds is not None or capture.response_dropped:
            response, response_body = self._packed(
                capture.response_bytes,
                capture.response_dropped,
                capture.response_body(),
                kinds or NO_KINDS,
                capture.sent,
            )
        id_, created_at_ms = capture.request_id, capture.created_at_ms
        payload = Payload(
            id_, created_at_ms, request, response, request_body, response_body
        )
        large = len(request_body or b"") + len(response_body or b"") > LARGEST_ENTRY
        return without_bodies(payload, DROPPED_LARGE) if large else payload

    def _packed(  # noqa: C901 - each call would cost
        self,
        original_bytes: int,
        dropped: str | None,
        wire: bytes,
        kinds: Kinds,
        sent: SentKey = NO_KEY,
    ) -> tuple[Note, bytes | None]:
        """What is sent of a body, and its note. None if it was dropped. `sent`: the
        key to mask."""
        if dropped is not None:
            return Note(original_bytes, dropped=dropped), None
        content_type, coding = kinds
        kind = _kept_text(content_type[:HEADER_CHARS]) if content_type else None
        size = len(wire)
        truncated = size < original_bytes
        if size < self._as_it_is and not (coding or truncated):
            # The same as below, as for most bodies.
            return Note(original_bytes, kind, PLAIN), sent.masked(wire)
        plain = wire
        if coding:
            opened = decompressed(wire, coding, self._limit)
            if opened is None:
                return self._unopened(original_bytes, wire, kinds, sent)
            plain = opened
        plain = sent.masked(plain)
        if len(plain) > self._limit:
            truncated, plain = True, plain[: self._limit]
        if truncated and (begun := sent.begun(plain)):
            plain = plain[:-begun]  # the first bytes of a truncated key
        if self._redacts:
            try:
                plain = self._redacted(plain, kind)
            except Unreadable:
                why = DROPPED_TRUNCATED if truncated else DROPPED_UNREADABLE
                return Note(original_bytes, kind, PACKED, truncated, why), None
        encoding, body = self._compressed(plain)
        return Note(original_bytes, kind, encoding, truncated), body

    def _unopened(
        self, original_bytes: int, wire: bytes, kinds: Kinds, sent: SentKey
    ) -> tuple[Note, bytes | None]:
        """The coding is unknown or the data corrupt: keep the body as it came."""
        kind, truncated = _text(kinds[0]), len(wire) < original_bytes
        if self._redacts:
            why = DROPPED_UNOPENED
            return Note(original_bytes, kind, PACKED, truncated, why), None
        encoding, body = self._compressed(sent.masked(wire))
        coding = f"{_text(kinds[1])}, {encoding}"
        return Note(original_bytes, kind, coding, truncated), body

    def _compressed(self, body: bytes) -> tuple[str, bytes]:
        """The encoding of what is sent, and that."""
        if len(body) < PACKED_FROM:
            return PLAIN, body
        return PACKED, self._compressor.compress(body)

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


_kept_text = lru_cache(maxsize=256)(_text)  # most bodies are of few types
