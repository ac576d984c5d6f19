"""Captured bodies as entries of their stream. An entry costs a gateway several times
what a small body does, so one entry holds the bodies of many requests. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from libs.common.contracts.events import EVENT_VERSION, PACKED

Fields = Mapping[bytes, bytes]

BATCH_KIND = b"payloads"
BATCH_BYTES = 32_768  # in one entry, unless a single request has more
WRITE_BYTES = 262_144  # encoded at once, unless a single entry has more
NOTES_BYTES = 128  # of a request without its bodies, about


class Note(msgspec.Struct, omit_defaults=True, gc=False):
    """The fields of `contracts.events.BodyNote` (a test compares them), as a struct
    that is cheap to make."""

    original_bytes: int
    content_type: str | None = None
    encoding: str = PACKED
    truncated: bool = False
    dropped: str | None = None


class Payload(msgspec.Struct, array_like=True, gc=False):
    """The captured bodies of one request, and the fields of
    `contracts.events.PayloadEvent`."""

    request_id: str
    created_at_ms: int
    request: Note | None = None
    response: Note | None = None
    request_body: bytes | None = None
    response_body: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes in the stream, about."""
        bodies = len(self.request_body or b"") + len(self.response_body or b"")
        return NOTES_BYTES + bodies


Batch = Sequence[Payload]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Payload]).decode
_encode_json = msgspec.json.Encoder().encode


def batches(payloads: Sequence[Payload]) -> Iterator[Batch]:
    """Payloads by entry, in order."""
    first = size = 0
    for position, payload in enumerate(payloads):
        if size and size + payload.size > BATCH_BYTES:
            yield payloads[first:position]
            first, size = position, 0
        size += payload.size
    if first < len(payloads):
        yield payloads[first:]


def writes(entries: Iterable[Batch]) -> Iterator[Sequence[Batch]]:
    """Entries by write to the socket, in order. Bounds what is in memory twice, plain
    and encoded."""
    together: list[Batch] = []
    size = 0
    for batch in entries:
        added = sum(payload.size for payload in batch)
        if together and size + added > WRITE_BYTES:
            yield together
            together, size = [], 0
        together.append(batch)
        size += added
    if together:
        yield together


def packed(payloads: Batch) -> tuple[str | bytes | int, ...]:
    """The fields of an entry: name, value, name, value..."""
    kind, data = BATCH_KIND, _encode(payloads)
    return ("kind", kind, "v", EVENT_VERSION, "data", data)


def unpacked(fields: Fields) -> Sequence[Fields]:
    """The fields of one entry for each payload of a batch, in the form of
    `contracts.events.StreamedPayload`. An entry that is no batch is returned as it is.
    A batch that cannot be decoded loses its content, because dead letters are kept and
    captured bodies must not be."""
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
