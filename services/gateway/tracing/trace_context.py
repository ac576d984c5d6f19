"""Reads a client's `traceparent` and `tracestate`, and writes those that go upstream
(W3C Trace Context, https://www.w3.org/TR/trace-context/). Pure.

OpenTelemetry's own reader logs each invalid value."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from libs.common.headers import Header

PARENT, STATE = b"traceparent", b"tracestate"
SAMPLED = 1
MOST_MEMBERS = 32
LONGEST_STATE = 512  # bytes; the least that everybody has to pass on
LONG_MEMBER = 128  # longer ones are left out first
_PARENT = re.compile(
    rb"[ \t]*([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?[ \t]*"
)
_MEMBER = re.compile(
    rb"([a-z0-9][a-z0-9_*/@-]{0,255})=([ !-+\--<>-~]{0,255}[!-+\--<>-~])"
)

State = tuple[tuple[str, str], ...]


class Parent(NamedTuple):
    """The span of the client that sent a request."""

    trace_id: int
    span_id: int
    flags: int
    state: State = ()


def parent_in(headers: Iterable[Header]) -> Parent | None:
    """What the client's headers name. None if they name nothing valid: then a trace
    begins here."""
    parents, states = [], []
    for name, value in headers:
        if name == PARENT:
            parents.append(value)
        elif name == STATE:
            states.append(value)
    if len(parents) != 1:
        return None
    found = _PARENT.fullmatch(parents[0])
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    trace_id, span_id = int(trace, 16), int(span, 16)
    # Later versions may append to what version 00 has.
    if version == b"ff" or (version == b"00" and more) or not trace_id or not span_id:
        return None
    return Parent(trace_id, span_id, int(flags, 16), _state(b",".join(states)))


def _state(listed: bytes) -> State:
    """The members of a list, without those that exceed its bounds. An invalid list
    counts as none."""
    texts = [text for part in listed.split(b",") if (text := part.strip(b" \t"))]
    members = [_MEMBER.fullmatch(text) for text in texts]
    keys = {member[1] for member in members if member is not None}
    if len(keys) != len(texts) or len(texts) > MOST_MEMBERS:
        return ()
    if _size(texts) > LONGEST_STATE:
        texts = [text for text in texts if len(text) <= LONG_MEMBER]
    while _size(texts) > LONGEST_STATE:
        texts.pop()
    pairs = [text.decode().partition("=") for text in texts]
    return tuple((key, value) for key, _, value in pairs)


def _size(texts: list[bytes]) -> int:
    return sum(map(len, texts)) + max(len(texts) - 1, 0)


def written(
    trace_id: int, span_id: int, *, sampled: bool, state: State
) -> list[Header]:
    """The headers that name a span as the parent of the receiver's."""
    value = b"00-%032x-%016x-%02x" % (trace_id, span_id, SAMPLED if sampled else 0)
    headers = [(PARENT, value)]
    if state:
        headers.append((STATE, ",".join(f"{k}={v}" for k, v in state).encode()))
    return headers


def with_parent(headers: Iterable[Header], ours: list[Header]) -> list[Header]:
    """Headers of a request, with `ours` instead of the trace context in them."""
    return [h for h in headers if h[0] not in (PARENT, STATE)] + ours
