"""What tells whose answer it is: each request has a token, and every byte of its
answer follows from that."""

import json
import re
import zlib
from collections.abc import Iterator
from itertools import count

from tests.support.clients.raw import event

TOKEN = re.compile(rb"tok-[0-9a-z]{8}")
EVIL = b"tok-evil0000"  # of what nobody asked for
_numbers = count(1)


def new_token() -> bytes:
    return b"tok-%08x" % next(_numbers)


def foreign(data: bytes, own: set[bytes]) -> set[bytes]:
    """Tokens in `data` that are of somebody else's request."""
    return set(TOKEN.findall(data)) - own


def size_of(token: bytes) -> int:
    """Of some answers a few bytes, of others more than a socket takes at once."""
    return (0, 1, 40, 700, 3_000, 20_000)[zlib.crc32(token) % 6]


def answer(token: bytes) -> bytes:
    """The JSON that answers a request."""
    text = token.decode()
    told = {
        "id": f"resp_{text}",
        "object": "response",
        "status": "completed",
        "token": text,
        "pad": f"{text} " * (size_of(token) // 13),
        "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},
    }
    return json.dumps(told).encode()


def events(token: bytes) -> Iterator[bytes]:
    """The stream that answers it."""
    text = token.decode()
    response = {"id": f"resp_{text}", "object": "response", "status": "in_progress"}
    yield event("response.created", sequence_number=0, response=response)
    for number in range(1 + zlib.crc32(token) % 7):
        yield event(
            "response.output_text.delta", sequence_number=number + 1, delta=f"{text} "
        )
    done = {**response, "status": "completed"}
    yield event("response.completed", sequence_number=9, response=done)
