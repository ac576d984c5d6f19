"""Packing captured bodies: decoded, redacted, compressed, or dropped with a reason."""

import gzip
import json
import zlib
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from libs.common.bodies.redaction import Redactor, parse_paths
from libs.common.contracts.payloads import Note
from libs.common.headers import NO_KINDS, Header, Kinds, kinds
from services.gateway.capture import packing
from services.gateway.capture.capture import Budget, Capture
from services.gateway.capture.packing import (
    PACKED_FROM,
    Packer,
    without_bodies,
)

BODY = json.dumps({"input": "SECRET " * 50, "b": 1}).encode()
LIMIT = 10_000
JSON = (b"content-type", b"application/json")


def deflated(body: bytes) -> bytes:
    maker = zlib.compressobj(wbits=-15)
    return maker.compress(body) + maker.flush()


def two_members(body: bytes) -> bytes:
    return gzip.compress(body[:20]) + gzip.compress(body[20:])


def two_frames(body: bytes) -> bytes:
    return zstandard.compress(body[:20]) + zstandard.compress(body[20:])


CODINGS: dict[str, tuple[str, Any]] = {
    "plain": ("identity", bytes),
    "gzip": ("gzip", gzip.compress),
    "gzip of two members": ("GZIP", two_members),
    "deflate": ("deflate", zlib.compress),
    "deflate without its head": ("deflate", deflated),
    "zstd": ("zstd", zstandard.compress),
    "zstd of two frames": ("zstd", two_frames),
}


def ended(
    body: bytes, what: Kinds = NO_KINDS, original_bytes: int | None = None
) -> Capture:
    """The capture of a request with this body and no answer."""
    capture = Capture(body, what, 1_000_000, Budget(10_000_000))
    capture.end("r", 1)
    if original_bytes is not None:
        capture.request_bytes = original_bytes
    return capture


def answered(*pieces: bytes, request: bytes = b"{}") -> Capture:
    """The capture of a request with an answer."""
    capture = Capture(request, NO_KINDS, LIMIT, Budget(10_000_000))
    capture.response_kinds = kinds([JSON])
    for piece in pieces:
        capture.keep(piece)
    capture.end("r", 1)
    return capture


def pack(
    body: bytes,
    *headers: Header,
    redact: str = "",
    original_bytes: int | None = None,
    limit: int = LIMIT,
) -> tuple[Note, bytes | None]:
    """A body's note, and what is stored of it, opened."""
    capture = ended(body, kinds([*headers]), original_bytes)
    payload = Packer(limit, Redactor(parse_paths(redact))).pack(capture)
    note, kept = payload.request, payload.request_body
    assert note is not None
    if kept and note.encoding.endswith("zstd"):
        kept = zstandard.decompress(kept)
    # Ingest compresses small bodies.
    note.encoding = note.encoding.replace("identity", "zstd")
    return note, kept


@pytest.mark.parametrize(
    ("size", "encoding"),
    [(PACKED_FROM - 1, "identity"), (PACKED_FROM, "zstd")],
)
def test_small_bodies_are_left_to_ingest(size: int, encoding: str) -> None:
    payload = Packer(PACKED_FROM, Redactor(())).pack(ended(b"x" * size))
    assert payload.request is not None
    assert payload.request.encoding == encoding
    assert (payload.request_body == b"x" * size) == (encoding == "identity")


@pytest.mark.parametrize(("coding", "encode"), CODINGS.values(), ids=CODINGS)
class TestCodings:
    def test_are_opened(self, coding: str, encode: Any) -> None:
        wire = encode(BODY)
        note, kept = pack(wire, JSON, (b"content-encoding", coding.encode()))
        assert kept == BODY
        assert note == Note(content_type="application/json", original_bytes=len(wire))

    def test_are_opened_within_the_limit(self, coding: str, encode: Any) -> None:
        headers = (b"content-encoding", coding.encode())
        note, kept = pack(encode(BODY), headers, limit=100)
        assert (kept, note.truncated) == (BODY[:100], True)

    def test_are_opened_as_far_as_they_came(self, coding: str, encode: Any) -> None:
        wire = encode(BODY)
        headers = (b"content-encoding", coding.encode())
        note, kept = pack(wire[:-9], headers, original_bytes=len(wire))
        assert note.truncated
        assert kept is not None
        assert BODY.startswith(kept)

    def test_are_redacted(self, coding: str, encode: Any) -> None:
        headers = (b"content-encoding", coding.encode())
        _, kept = pack(encode(BODY), JSON, headers, redact="input")
        assert kept == b'{"input":"[redacted]","b":1}'

    def test_a_cut_document_is_not_kept_unredacted(
        self, coding: str, encode: Any
    ) -> None:
        headers = (b"content-encoding", coding.encode())
        note, kept = pack(encode(BODY), JSON, headers, redact="input", limit=100)
        assert kept is None
        assert note.dropped == packing.DROPPED_TRUNCATED


@pytest.mark.parametrize("coding", [b"br", b"gzip", b"zstd", b"deflate", b"gzip, br"])
def test_what_cannot_be_opened_is_kept_as_it_came(coding: bytes) -> None:
    note, kept = pack(b"\xff\xfe rubbish", (b"content-encoding", coding))
    assert kept == b"\xff\xfe rubbish"
    assert note.encoding == f"{coding.decode()}, zstd"


@pytest.mark.parametrize("coding", [b"br", b"gzip", b"zstd", b"deflate", b"gzip, br"])
def test_but_not_when_something_has_to_be_taken_out(coding: bytes) -> None:
    note, kept = pack(BODY, (b"content-encoding", coding), redact="input")
    assert kept is None
    assert note.dropped == packing.DROPPED_UNOPENED


@pytest.mark.parametrize("kind", [b"text/plain", b"multipart/form-data; boundary=x"])
def test_what_is_no_json_is_kept_only_when_nothing_is_to_be_taken_out(
    kind: bytes,
) -> None:
    assert pack(b"SECRET", (b"content-type", kind))[1] == b"SECRET"
    note, kept = pack(b"SECRET", (b"content-type", kind), redact="input")
    assert (kept, note.dropped) == (None, packing.DROPPED_UNREADABLE)


def test_an_empty_body_is_empty() -> None:
    assert pack(b"", redact="input") == (Note(original_bytes=0), b"")


def test_a_stream_keeps_the_events_that_came_whole() -> None:
    events = b'data: {"delta":"SECRET"}\n\n' * 3
    note, kept = pack(
        events, (b"content-type", b"Text/Event-Stream; charset=utf-8"),
        redact="delta", limit=len(events) - 5,
    )  # fmt: skip
    assert kept == b'data: {"delta":"[redacted]"}\n\n' * 2
    assert note.truncated


def test_pieces_are_put_together() -> None:
    pieces = [BODY[:10], BODY[10:11], BODY[11:]]
    payload = Packer(LIMIT, Redactor(())).pack(answered(*pieces))
    assert payload.response_body == BODY


def test_an_entry_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LARGEST_ENTRY", 100)
    note, kept = pack(bytes(range(256)) * 3)
    assert (kept, note.dropped) == (None, packing.DROPPED_LARGE)


def test_a_marker_keeps_what_is_known() -> None:
    capture = answered(BODY)
    capture.request_dropped = "first reason"
    marker = without_bodies(Packer(LIMIT, Redactor(())).pack(capture), "no room")
    assert marker.request_id == "r"
    assert (marker.request_body, marker.response_body) == (None, None)
    assert marker.request is not None
    assert marker.request.dropped == "first reason"
    assert marker.response == Note(
        content_type="application/json",
        encoding="identity",
        original_bytes=len(BODY),
        dropped="no room",
    )


@given(
    noise=st.binary(max_size=200),
    coding=st.sampled_from([b"gzip", b"zstd", b"deflate", b"identity", b"br"]),
    kind=st.sampled_from([b"application/json", b"text/event-stream", b"x"]),
    redact=st.sampled_from(["", "input"]),
)
def test_nothing_that_travels_breaks_it(
    noise: bytes, coding: bytes, kind: bytes, redact: str
) -> None:
    headers = [(b"content-type", kind), (b"content-encoding", coding)]
    note, kept = pack(noise, *headers, redact=redact)
    assert (kept is None) == (note.dropped is not None)


@given(at=st.integers(0, 150), coding=st.sampled_from(list(CODINGS)))
def test_no_piece_of_a_body_is_kept_unredacted(at: int, coding: str) -> None:
    name, encode = CODINGS[coding]
    wire = encode(BODY)
    headers = (b"content-encoding", name.encode())
    for kind in (b"application/json", b"text/event-stream", b"application/jsonl"):
        _, kept = pack(
            wire[:at], (b"content-type", kind), headers,
            redact="input", original_bytes=len(wire),
        )  # fmt: skip
        assert b"SEC" not in (kept or b"")
