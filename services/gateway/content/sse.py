"""Extracts facts for the ledger from a stream of server-sent events. Pure.

Parses only the events that carry such facts."""

import re
from typing import Final

from libs.common.bodies.hints import LARGEST_QUICK
from services.gateway.content.response_facts import Facts, read_event

# Types whose JSON is parsed: they carry ids or usage (docs/upstream-api.md).
_TERMINAL: Final = {
    b"response.completed": "completed",
    b"response.failed": "failed",
    b"response.incomplete": "incomplete",
    b"error": "error",
}
# The beginning of events that are skipped, by their type, once the first token was
# seen: most of a stream.
_SKIPPED: Final = {
    kind: b"event: %b\n" % kind
    for kind in (
        b"response.output_text.delta",
        b"response.function_call_arguments.delta",
        b"response.reasoning_summary_text.delta",
        b"response.reasoning_text.delta",
        b"response.custom_tool_call_input.delta",
    )
}
MOST_LINES: Final = 1_000  # of an event that is parsed
LONGEST_TYPE = 128
# In events without an `event:` line the type is the first member of the JSON.
_CR: Final = ord("\r")
_LF: Final = ord("\n")
_first_member = re.compile(rb'\{\s*"type"\s*:\s*"([a-z0-9_.]+)"')
LARGEST_EVENT: Final = 32_000_000  # bytes; larger ones are relayed without being parsed


class EventTap:
    """Observes the chunks of a stream while they are relayed.

    `terminal` is None until an event ends the response, then `completed`, `failed`,
    `incomplete` or `error`; `facts` are those of that event.
    """

    def __init__(self) -> None:
        self.terminal: str | None = None
        self.facts = Facts()
        self.first_event: bytes | None = None  # type of the first event
        self.saw_token = False
        self.mid_event = False  # the last chunk ended inside an event
        self.events = 0
        self.unread = b""  # JSON of a terminal event that has to be parsed in steps
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._created: bytes = b""
        self._cr = False  # the last chunk ended in a CR, which is held back
        # The beginning of the last event, if such events are skipped from now on.
        self._skips = b""

    def feed(self, chunk: bytes) -> None:
        """Processes the next bytes of the stream."""
        # Compiled, `startswith` of one prefix, slices and `in` with a number take a
        # third of `startswith` of several prefixes and `find`.
        skips = self._skips
        if (
            skips
            and not self._held
            and chunk.startswith(skips)
            and chunk.endswith(b"\n\n")
            and _LF not in chunk[len(skips) : -2]  # one whole event
        ):
            self.events += 1
            return
        if self._cr or _CR in chunk:
            chunk = self._without_cr(chunk)
        if self._held:
            self._held.append(chunk)
            if chunk.find(b"\n\n") < 0 and not chunk.startswith(b"\n"):
                self._hold_on(chunk)
                return
            chunk = b"".join(self._held)
            self._held.clear()
            self._held_bytes = 0
        events = chunk.split(b"\n\n")
        rest = events.pop()
        for event in events:
            if skips and event.startswith(skips):
                self.events += 1
            else:
                self._read(event)
                skips = self._skips
        self.mid_event = bool(rest)
        if rest:
            self._held.append(rest)
            self._held_bytes = len(rest)

    def _without_cr(self, chunk: bytes) -> bytes:
        """Replaces CRLF with LF, also where a chunk boundary splits it."""
        if self._cr:
            chunk = b"\r" + chunk
        self._cr = chunk.endswith(b"\r")
        if self._cr:
            chunk = chunk[:-1]
        return chunk.replace(b"\r\n", b"\n")

    def _hold_on(self, chunk: bytes) -> None:
        self._held_bytes += len(chunk)
        if self._held_bytes > LARGEST_EVENT:
            self._held = [b":"]  # a comment, so that its end is skipped
            self._held_bytes = 1

    def _read(self, event: bytes) -> None:
        kind = _kind(event)
        if not kind:
            return
        self.events += 1
        if self.first_event is None:
            self.first_event = kind
            self._created = event if len(event) <= LARGEST_QUICK else b""
        if kind.endswith(b".delta"):
            self.saw_token = True
            self._skips = _SKIPPED.get(kind, b"")
        elif kind in _TERMINAL:
            self.terminal = _TERMINAL[kind]
            if len(event) <= LARGEST_QUICK:
                self.facts = read_event(_data(event))[1]
            else:
                self.unread = _data(event)

    @property
    def speaks_responses(self) -> bool:
        """Is this a stream of the Responses API, which must end with a terminal
        event?"""
        return self.first_event is not None and self.first_event.startswith(
            b"response."
        )

    @property
    def created(self) -> bytes:
        """The JSON of the first event, which holds the response's id."""
        return _data(self._created)

    @property
    def response_id(self) -> str | None:
        """The response's id, once the first event has come."""
        return read_event(self.created)[1].response_id

    @property
    def model(self) -> str | None:
        """The answering model, as named by the first event."""
        return read_event(self.created)[1].model


def _kind(event: bytes) -> bytes:
    """The event's type: from its `event:` line, else from the JSON."""
    start = event.lstrip(b"\n")
    if start.startswith(b"event:"):
        # `in` tries an integer first, and formats an error: 1,800 instructions.
        end = start.find(b"\n")
        return (start[6:end] if end >= 0 else start[6:]).strip()
    data = _data(start)
    if not data.startswith(b"{"):
        return b""
    if len(data) > LARGEST_QUICK:
        first = _first_member.match(data, 0, LONGEST_TYPE)
        return first[1] if first is not None else b""
    return read_event(data)[0].encode()


def _data(event: bytes) -> bytes:
    """The JSON of its `data:` lines."""
    if event.startswith(b"event:"):
        rest = event[event.find(b"\n") + 1 :]
        if rest.startswith(b"data:") and _LF not in rest:  # as most have it
            return rest[5:].strip()
    if event.count(b"\n") > MOST_LINES:
        return b""
    lines = event.split(b"\n")
    return b"\n".join(line[5:].strip() for line in lines if line.startswith(b"data:"))
