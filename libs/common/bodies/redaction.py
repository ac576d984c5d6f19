"""Redacts parts of JSON documents before they are stored. Pure.

A value that does not have the structure of a path is redacted as well: the path
`input[*].content` redacts an `input` that is a string. A document that cannot be parsed
raises `Unreadable` and must not be stored."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

MARK = "[redacted]"
MOST_PATHS = 100
ANY = "*"  # every item of a list, every member of an object

Step = str | int
JsonPath = tuple[Step, ...]

_SEGMENT = re.compile(r"(?P<name>[^\s.,\[\]]+)?(?P<indexes>(?:\[(?:\*|\d{1,9})\])*)")
# Members of a partial output event that contain no content.
_PLACING = frozenset(
    {
        *("type", "sequence_number", "output_index", "content_index"),
        *("summary_index", "item_id"),
    }
)
# Fields of a server-sent event besides its data; comments are dropped.
_KEPT_FIELDS = re.compile(rb"(?:event|id|retry):[ \t]?[\w.:-]{0,200}\Z", re.ASCII)


class BadPath(ValueError):
    """A redaction path is invalid."""


class Unreadable(Exception):
    """A body cannot be parsed, so it may contain anything."""


def parse_paths(text: str) -> tuple[JsonPath, ...]:
    """Parse a comma-separated list such as `input[*].content,metadata.email`."""
    listed = [part.strip() for part in text.split(",")]
    paths = tuple(_parse(part) for part in listed if part)
    if len(paths) > MOST_PATHS:
        raise BadPath(f"contains more than {MOST_PATHS} paths")
    return paths


def _parse(text: str) -> JsonPath:
    steps: list[Step] = []
    for segment in text.split("."):
        match = _SEGMENT.fullmatch(segment)
        if not match or not segment:
            raise BadPath(f"contains an invalid path: {text[:100]!r}")
        if match["name"]:
            steps.append(match["name"])
        indexes = re.findall(r"\[(\*|\d+)\]", match["indexes"])
        steps += [ANY if index == ANY else int(index) for index in indexes]
    return tuple(steps)


class Redactor:
    """Redacts the values that `paths` select. A path starts at the document, and also
    at its member `response`, which contains the response object in events."""

    def __init__(self, paths: Sequence[JsonPath]) -> None:
        self._paths = paths
        # Deltas of a streamed response contain output outside of any path.
        self._output = any(path[0] in ("output", ANY) for path in paths)

    def __bool__(self) -> bool:
        return bool(self._paths)

    def document(self, body: bytes) -> bytes:
        """Redact a JSON document. Raises `Unreadable`."""
        return _encoded(self._redacted(_decoded(body))) if body.strip() else body

    def lines(self, body: bytes) -> bytes:
        """Redact JSON documents, one per line. A truncated last line is dropped.
        Raises `Unreadable`."""
        kept = [line for line in body.split(b"\n") if line.strip()]
        whole = body.endswith(b"\n")
        redacted = [self._event(line) for line in (kept if whole else kept[:-1])]
        if kept and not whole:
            redacted += self._last(kept[-1])
        return b"".join(line + b"\n" for line in redacted)

    def events(self, body: bytes) -> bytes:
        """Redact server-sent events. A truncated event and comments are dropped; data
        that is not JSON is redacted entirely."""
        return b"".join(
            b"".join(line + b"\n" for line in self._frame(frame)) + b"\n"
            for frame in _frames(body)
        )

    def _frame(self, lines: Sequence[bytes]) -> list[bytes]:
        fields = [line for line in lines if _KEPT_FIELDS.match(line)]
        data = [_value(line) for line in lines if line.partition(b":")[0] == b"data"]
        if not data:
            return fields
        joined = b"\n".join(data)
        return [*fields, b"data: " + self._streamed(joined)]

    def _streamed(self, data: bytes) -> bytes:
        if data == b"[DONE]":
            return data
        try:
            return self._event(data)
        except Unreadable:
            return MARK.encode()

    def _last(self, line: bytes) -> list[bytes]:
        try:
            return [self._event(line)]
        except Unreadable:
            return []

    def _event(self, data: bytes) -> bytes:
        event = self._redacted(_decoded(data))
        if self._output and isinstance(event, dict) and "output_index" in event:
            event = {k: v if k in _PLACING else MARK for k, v in event.items()}
        return _encoded(event)

    def _redacted(self, document: Any) -> Any:
        for path in self._paths:
            document = _without(document, path)
            if isinstance(document, dict):
                inner = document.get("response")
                if isinstance(inner, dict | list):
                    document["response"] = _without(inner, path)
        return document


def _without(value: Any, path: JsonPath) -> Any:
    if value is None:
        return None
    if not path:
        return MARK
    if isinstance(value, list):
        return _list_without(value, path)
    if isinstance(value, dict):
        return _object_without(value, path)
    return MARK  # a scalar where the path continues: it may contain the selected value


def _list_without(items: list[Any], path: JsonPath) -> list[Any]:
    step, rest = path[0], path[1:]
    if step == ANY:
        return [_without(item, rest) for item in items]
    if isinstance(step, int):
        return [_without(item, rest) if n == step else item
                for n, item in enumerate(items)]  # fmt: skip
    return [
        _without(item, path) for item in items
    ]  # `input.content` applies to each item


def _object_without(members: dict[str, Any], path: JsonPath) -> Any:
    step, rest = path[0], path[1:]
    if isinstance(step, int):
        return MARK
    if step == ANY:
        return {name: _without(value, rest) for name, value in members.items()}
    if step in members:
        return {**members, step: _without(members[step], rest)}
    return members


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Unreadable("The body is not JSON.") from error


def _encoded(document: Any) -> bytes:
    return msgspec.json.encode(document)


def _frames(body: bytes) -> Iterator[list[bytes]]:
    """Yield the lines of each complete event."""
    frame: list[bytes] = []
    for line in body.splitlines():
        if line:
            frame.append(line)
        elif frame:
            yield frame
            frame = []


def _value(line: bytes) -> bytes:
    return line.partition(b":")[2].removeprefix(b" ")
