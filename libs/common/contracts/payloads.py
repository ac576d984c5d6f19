"""The captured bodies of a request, from the gateway's capture thread to SQL.

They are in a stream of their own, so that dropping bodies under backlog never affects
the ledger. One struct serves the whole way: gateways write it as MessagePack, many to
an entry (libs/common/redis/capture_batches.py), and ingest reads it back."""

import msgspec

# Compression of a body in the stream. Ingest compresses `identity` bodies.
PACKED, PLAIN = "zstd", "identity"
NOTES_BYTES = 128  # of a request without its bodies, about

_encode = msgspec.json.Encoder().encode


class Note(msgspec.Struct, omit_defaults=True, gc=False):
    """Describes a captured body, or says why it is missing."""

    original_bytes: int  # as transferred
    content_type: str | None = None
    # In the order of Content-Encoding, outermost last: "zstd", or "br, zstd" for a
    # body whose own coding could not be decoded.
    encoding: str = PACKED
    truncated: bool = False
    dropped: str | None = None  # why the body is missing


class Payload(msgspec.Struct, array_like=True, gc=False):
    """The captured bodies of one request. A later version may append fields: a reader
    ignores what it does not know."""

    request_id: str
    created_at_ms: int  # the request's
    request: Note | None = None
    response: Note | None = None
    request_body: bytes | None = None
    response_body: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes in the stream, about."""
        bodies = len(self.request_body or b"") + len(self.response_body or b"")
        return NOTES_BYTES + bodies

    def described(self) -> bytes:
        """JSON without the bodies, which may hold text that was not redacted."""
        return _encode(
            {
                "request_id": self.request_id,
                "created_at_ms": self.created_at_ms,
                "request": self.request,
                "response": self.response,
            }
        )
