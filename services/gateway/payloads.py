"""A captured exchange as an entry of the payload stream: opened, redacted,
compressed. Pure; runs beside the event loop.

Redaction fails closed: a body that cannot be taken apart is dropped, with a note
that says why."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import zstandard

from libs.common.contracts import PayloadEntry
from libs.common.headers import Header
from libs.common.redaction import Redactor, Unreadable

LEVEL = 1  # half the time of 3, for a few per cent more bytes
LARGEST_ENTRY = 33_554_432  # bytes of both bodies, compressed
LARGEST_WINDOW = 1 << 27  # of a zstd frame; more memory is not given to open one
HEADER_CHARS = 200

DROPPED_UNOPENED = "cannot be opened, so it cannot be redacted"
DROPPED_UNREADABLE = "cannot be read, so it cannot be redacted"
DROPPED_TRUNCATED = "truncated, so it cannot be redacted"
DROPPED_LARGE = "too large for one entry"


@dataclass(slots=True)
class RawBody:
    """A body as it travelled, up to a limit."""

    chunks: Sequence[bytes]
    headers: list[Header]
    travelled: int  # bytes, those beyond the limit included
    dropped: str | None = None


@dataclass(slots=True)
class RawPayload:
    """The bodies of one request."""

    request_id: str
    created_at_ms: int
    request: RawBody
    response: RawBody | None


class Note(msgspec.Struct, omit_defaults=True):
    """The fields of `contracts.BodyNote` (a test compares them), cheap to write."""

    original_bytes: int
    content_type: str | None = None
    encoding: str = "zstd"
    truncated: bool = False
    dropped: str | None = None


class Notes(msgspec.Struct, omit_defaults=True):
    """The fields of `contracts.PayloadEvent`."""

    request_id: str
    created_at_ms: int
    request: Note | None = None
    response: Note | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Notes).decode


class Packer:
    """Makes entries of raw payloads. For one thread: compressors are not shared."""

    def __init__(self, limit: int, redactor: Redactor) -> None:
        self._limit = limit
        self._redactor = redactor
        self._compressor = zstandard.ZstdCompressor(level=LEVEL)

    def pack(self, raw: RawPayload) -> PayloadEntry:
        notes = Notes(raw.request_id, raw.created_at_ms)
        bodies: dict[str, bytes] = {}
        notes.request, body = self._packed(raw.request)
        if body is not None:
            bodies["request"] = body
        if raw.response is not None:
            notes.response, body = self._packed(raw.response)
            if body is not None:
                bodies["response"] = body
        entry = PayloadEntry(raw.request_id, _encode(notes), bodies)
        too_large = entry.size > LARGEST_ENTRY
        return without_bodies(entry, DROPPED_LARGE) if too_large else entry

    def _packed(self, raw: RawBody) -> tuple[Note, bytes | None]:
        note = Note(raw.travelled, dropped=raw.dropped)
        if raw.dropped is not None:
            return note, None
        content_type, coding = _kinds(raw.headers)
        note.content_type = content_type
        wire = raw.chunks[0] if len(raw.chunks) == 1 else b"".join(raw.chunks)
        note.truncated = len(wire) < raw.travelled
        plain = wire if coding is None else opened(wire, coding, self._limit)
        if plain is None and self._redactor:
            note.dropped = DROPPED_UNOPENED
            return note, None
        if plain is None:
            # A coding that is not known here, or broken: kept as it came.
            note.encoding = f"{coding}, zstd"
            return note, self._compressor.compress(wire)
        if len(plain) > self._limit:
            note.truncated, plain = True, plain[: self._limit]
        return self._finished(note, plain)

    def _finished(self, note: Note, plain: bytes) -> tuple[Note, bytes | None]:
        if self._redactor:
            try:
                plain = self._redacted(plain, note.content_type)
            except Unreadable:
                why = DROPPED_TRUNCATED if note.truncated else DROPPED_UNREADABLE
                note.dropped = why
                return note, None
        return note, self._compressor.compress(plain)

    def _redacted(self, plain: bytes, content_type: str | None) -> bytes:
        kind = (content_type or "").partition(";")[0].strip().lower()
        if kind == "text/event-stream":
            return self._redactor.events(plain)
        if kind == "application/jsonl":
            return self._redactor.lines(plain)
        return self._redactor.document(plain)


def opened(body: bytes, coding: str, limit: int) -> bytes | None:
    """The plain bytes, one more than `limit` when there are more; what there is of
    a body that was cut. None for a coding that is not known here, or broken."""
    coding = coding.strip().lower()
    if coding == "identity" or not body:
        return body[: limit + 1]
    try:
        if coding == "zstd":
            opener = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
            with opener.stream_reader(body, read_across_frames=True) as reader:
                return reader.read(limit + 1)
        if coding in ("gzip", "x-gzip"):
            return _inflated(body, 31, limit)
        if coding == "deflate":
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


def without_bodies(entry: PayloadEntry, why: str) -> PayloadEntry:
    """The marker that is left of an entry."""
    notes = _decode(entry.data)
    for note in (notes.request, notes.response):
        if note is not None:
            note.dropped = note.dropped or why
    return PayloadEntry(entry.id, _encode(notes), {})


def _kinds(headers: list[Header]) -> tuple[str | None, str | None]:
    """Content type and coding."""
    content_type = coding = None
    for name, value in headers:
        if name == b"content-type":
            content_type = value.decode("latin-1")[:HEADER_CHARS]
        elif name == b"content-encoding":
            coding = value.decode("latin-1")[:HEADER_CHARS]
    return content_type, coding
