"""JSON and SSE encoding, and the two forms of an answer."""

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

Json = dict[str, Any]

encode = msgspec.json.encode
decode: Callable[[bytes], Any] = msgspec.json.decode


def nothing() -> None:
    """The callback of an answer that changes nothing."""


@dataclass(frozen=True)
class Plain:
    """An answer with a complete body."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    # Called when the answer is about to be sent. If the client disconnects earlier, the
    # generation is canceled and nothing is stored.
    commit: Callable[[], None] = nothing
    # Always called once, whether the answer was sent or not.
    release: Callable[[], None] = nothing
    response_id: str | None = None


@dataclass(frozen=True)
class Stream:
    """An answer sent frame by frame. Producing the frames commits the turn."""

    frames: AsyncGenerator[bytes, None]
    release: Callable[[], None] = nothing
    response_id: str | None = None


Answer = Plain | Stream


def json_answer(value: Any, status: int = 200) -> Plain:
    return Plain(encode(value), status)


def sse_frame(event: Json) -> bytes:
    """An event in the service's framing: no id, no [DONE]."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), encode(event))
