"""Captured bodies on the wire: those of many requests in one stream entry, which
costs a gateway several times what a small body does. Pure."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from libs.common.contracts.events import EVENT_VERSION, PACKED

Fields = Mapping[bytes, bytes]

BATCH_KIND = b"payloads"
BATCH_BYTES = 32_768  # in one entry, but for a request that has more by itself
NOTES_BYTES = 128  # what is said of a request's bodies, about


class Note(msgspec.Struct, omit_defaults=True, gc=False):
    """The fields of `contracts.BodyNote` (a test compares them), cheap to write."""

    original_bytes: int
    content_type: str | None = None
    encoding: str = PACKED
    truncated: bool = False
    dropped: str | None = None


class Payload(msgspec.Struct, array_like=True, gc=False):
    """The captured bodies of one request, and what `contracts.PayloadEvent` says of
    them."""

    request_id: str
    created_at_ms: int
    request: Note | None = None
    response: Note | None = None
    request_body: bytes | None = None
    response_body: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes on the wire, about."""
        bodies = len(self.request_body or b"") + len(self.response_body or b"")
        return NOTES_BYTES + bodies


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Payload]).decode
_encode_json = msgspec.json.Encoder().encode


def batches(payloads: Sequence[Payload]) -> Iterator[Sequence[Payload]]:
    """Those that travel together, in order."""
    first = size = 0
    for position, payload in enumerate(payloads):
        if size and size + payload.size > BATCH_BYTES:
            yield payloads[first:position]
            first, size = position, 0
        size += payload.size
    if first < len(payloads):
        yield payloads[first:]


def packed(payloads: Sequence[Payload]) -> tuple[str | bytes | int, ...]:
    """A batch as fields of an entry."""
    kind, data = BATCH_KIND, _encode(payloads)
    return ("kind", kind, "v", EVENT_VERSION, "data", data)


def unpacked(fields: Fields) -> Sequence[Fields]:
    """The entries that a batch stands for, each with its event's JSON and bodies in
    fields of their own. What is no batch is itself; one that cannot be read is left
    without its content, for poison is kept and bodies must not be."""
    if fields.get(b"kind") != BATCH_KIND:
        return (fields,)
    version = fields.get(b"v", b"")
    try:
        return [_alone(payload, version) for payload in _decode(fields[b"data"])]
    except (KeyError, ValueError, msgspec.MsgspecError):
        return ({b"kind": BATCH_KIND, b"v": version},)


def _alone(payload: Payload, version: bytes) -> Fields:
    event = {
        "request_id": payload.request_id,
        "created_at_ms": payload.created_at_ms,
        "request": payload.request,
        "response": payload.response,
    }
    fields = {
        b"kind": b"payload",
        b"id": payload.request_id.encode(),
        b"v": version,
        b"data": _encode_json(event),
    }
    if payload.request_body is not None:
        fields[b"request"] = payload.request_body
    if payload.response_body is not None:
        fields[b"response"] = payload.response_body
    return fields
