"""Shows to which request an answer belongs: each request has a token, and every byte of
its answer is derived from the token."""

import json
import re
import zlib
from collections.abc import Iterator
from itertools import count

from tests.support.clients.raw import event

TOKEN = re.compile(rb"tok-[0-9a-z]{8}")
EVIL = b"tok-evil0000"  # in unsolicited bytes
_numbers = count(1)


def new_token() -> bytes:
    return b"tok-%08x" % next(_numbers)


def foreign(data: bytes, own: set[bytes]) -> set[bytes]:
    """Tokens of other requests that appear in `data`."""
    return set(TOKEN.findall(data)) - own


def size_of(token: bytes) -> int:
    """Some answers have a few bytes, others more than a socket buffer holds."""
    return (0, 1, 40, 700, 3_000, 20_000)[zlib.crc32(token) % 6]


def answer(token: bytes) -> bytes:
    """The JSON answer of a request."""
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
    """The streamed answer of a request."""
    text = token.decode()
    response = {"id": f"resp_{text}", "object": "response", "status": "in_progress"}
    yield event("response.created", sequence_number=0, response=response)
    for number in range(1 + zlib.crc32(token) % 7):
        yield event(
            "response.output_text.delta", sequence_number=number + 1, delta=f"{text} "
        )
    done = {**response, "status": "completed"}
    yield event("response.completed", sequence_number=9, response=done)
