"""A captured exchange on its way to the payload stream: opened, redacted,
compressed. Pure; runs beside the event loop.

Redaction fails closed: a body that cannot be taken apart is dropped, with a note
that says why."""

import zlib
from collections.abc import Sequence

import msgspec
import zstandard

from libs.common.bodies.redaction import Redactor, Unreadable
from libs.common.contracts.events import PACKED, PLAIN
from libs.common.headers import Kinds
from libs.common.providers.key_echoes import NO_KEY, SentKey
from libs.common.redis.capture_batches import Note, Payload

LEVEL = 1  # half the time of 3, for a few per cent more bytes
# Smaller bodies travel as they are, and ingest compresses them: their number is
# what counts then, and here it counts against requests.
PACKED_FROM = 8_192  # bytes
LARGEST_ENTRY = 33_554_432  # bytes of both bodies, as they are sent
LARGEST_WINDOW = 1 << 27  # of a zstd frame; more memory is not given to open one
HEADER_CHARS = 200

DROPPED_UNOPENED = "cannot be opened, so it cannot be redacted"
DROPPED_UNREADABLE = "cannot be read, so it cannot be redacted"
DROPPED_TRUNCATED = "truncated, so it cannot be redacted"
DROPPED_LARGE = "too large for one entry"


class RawBody(msgspec.Struct):
    """A body as it travelled, up to a limit."""

    chunks: Sequence[bytes]
    kinds: Kinds
    travelled: int  # bytes, those beyond the limit included
    dropped: str | None = None


class RawPayload(msgspec.Struct):
    """The bodies of one request."""

    request_id: str
    created_at_ms: int
    request: RawBody
    response: RawBody | None
    sent: SentKey = NO_KEY  # hidden in the response


class Packer:
    """For one thread: compressors are not shared."""

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
        note = Note(raw.travelled, dropped=raw.dropped)
        if raw.dropped is not None:
            return note, None
        content_type, coding = raw.kinds
        note.content_type = _text(content_type)
        wire = raw.chunks[0] if len(raw.chunks) == 1 else b"".join(raw.chunks)
        note.truncated = len(wire) < raw.travelled
        plain = opened(wire, coding, self._limit) if coding else wire
        if plain is None and self._redactor:
            note.dropped = DROPPED_UNOPENED
            return note, None
        if plain is None:
            # A coding that is not known here, or broken: kept as it came.
            note.encoding = f"{_text(coding)}, {PACKED}"
            return note, self._compressed(note, sent.masked(wire))
        plain = sent.masked(plain)
        if len(plain) > self._limit:
            note.truncated, plain = True, plain[: self._limit]
        if note.truncated and (begun := sent.begun(plain)):
            plain = plain[:-begun]  # the rest of a key may have been cut off
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


def opened(body: bytes, coding: bytes, limit: int) -> bytes | None:
    """The plain bytes, one more than `limit` when there are more; what there is of
    a body that was cut. None for a coding that is not known here, or broken."""
    coding = coding.strip().lower()
    if coding == b"identity" or not body:
        return body[: limit + 1]
    try:
        if coding == b"zstd":
            opener = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
            with opener.stream_reader(body, read_across_frames=True) as reader:
                return reader.read(limit + 1)
        if coding in (b"gzip", b"x-gzip"):
            return _inflated(body, 31, limit)
        if coding == b"deflate":
            return _deflated(body, limit)
    except (zlib.error, zstandard.ZstdError):
        pass
    return None


def _deflated(body: bytes, limit: int) -> bytes:
    """With the zlib header that the standard asks for, or without, as some do."""
    try:
        return _inflated(body, 15, limit)
    except zlib.error:
        return _inflated(body, -15, limit)


def _inflated(body: bytes, wbits: int, limit: int) -> bytes:
    """All members of a gzip body: there may be several."""
    pieces: list[bytes] = []
    size = 0
    while body and size <= limit:
        opener = zlib.decompressobj(wbits=wbits)
        pieces.append(opener.decompress(body, limit + 1 - size))
        size += len(pieces[-1])
        body = opener.unused_data
    return b"".join(pieces)


def without_bodies(payload: Payload, why: str) -> Payload:
    """The marker that is left of it."""
    for note in (payload.request, payload.response):
        if note is not None:
            note.dropped = note.dropped or why
    payload.request_body = payload.response_body = None
    return payload


def _text(value: bytes | None) -> str | None:
    return value.decode("latin-1")[:HEADER_CHARS] if value else None
