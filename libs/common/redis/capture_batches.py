"""Captured bodies as entries of their stream. An entry costs a gateway several times
what a small body does, so one entry holds the bodies of many requests. Pure."""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from libs.common.contracts.events import EVENT_VERSION
from libs.common.contracts.payloads import Payload

BATCH_KIND = b"payloads"
BATCH_BYTES = 32_768  # in one entry, unless a single request has more
WRITE_BYTES = 262_144  # encoded at once, unless a single entry has more
Batch = Sequence[Payload]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Payload]).decode


def batches(payloads: Sequence[Payload]) -> Iterator[Batch]:
    """Payloads by entry, in order."""
    first = size = 0
    for position, payload in enumerate(payloads):
        added = payload.size
        if size and size + added > BATCH_BYTES:
            yield payloads[first:position]
            first, size = position, 0
        size += added
    if first < len(payloads):
        yield payloads[first:]


def writes(entries: Iterable[Batch]) -> Iterator[Sequence[Batch]]:
    """Entries by write to the socket, in order. Bounds what is in memory twice, plain
    and encoded."""
    together: list[Batch] = []
    size = 0
    for batch in entries:
        added = BATCH_BYTES if len(batch) > 1 else batch[0].size
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


def unpacked(data: bytes) -> list[Payload]:
    """The payloads of an entry's `data`. Raises `ValueError` if it cannot be
    decoded."""
    try:
        return _decode(data)
    except RecursionError:  # not an error of msgspec's own
        raise ValueError("nested too deeply") from None
