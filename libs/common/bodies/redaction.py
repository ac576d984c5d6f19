"""Named parts of JSON documents taken out before they are kept. Pure.

Whatever is not as a path expects is taken out too: `input[*].content` of a request
whose `input` is a mere string takes the string. What cannot be read is refused,
never passed on."""

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
# Members of an event that places a part of an output item, which tell nothing.
_PLACING = frozenset(
    {
        *("type", "sequence_number", "output_index", "content_index"),
        *("summary_index", "item_id"),
    }
)
# Fields of a server-sent event beside its data; comments are left out.
_KEPT_FIELDS = re.compile(rb"(?:event|id|retry):[ \t]?[\w.:-]{0,200}\Z", re.ASCII)


class BadPath(ValueError):
    """A redaction path that cannot be read."""


class Unreadable(Exception):
    """A body that cannot be taken apart, so nobody knows what is in it."""


def parse_paths(text: str) -> tuple[JsonPath, ...]:
    """The paths of a comma list such as `input[*].content,metadata.email`."""
    listed = [part.strip() for part in text.split(",")]
    paths = tuple(_parse(part) for part in listed if part)
    if len(paths) > MOST_PATHS:
        raise BadPath(f"has more than {MOST_PATHS} paths")
    return paths


def _parse(text: str) -> JsonPath:
    steps: list[Step] = []
    for segment in text.split("."):
        match = _SEGMENT.fullmatch(segment)
        if not match or not segment:
            raise BadPath(f"has a path that cannot be read: {text[:100]!r}")
        if match["name"]:
            steps.append(match["name"])
        indexes = re.findall(r"\[(\*|\d+)\]", match["indexes"])
        steps += [ANY if index == ANY else int(index) for index in indexes]
    return tuple(steps)


class Redactor:
    """Takes the parts that `paths` name out of bodies. A path counts from the
    document, and from its `response` member, in which events carry one."""

    def __init__(self, paths: Sequence[JsonPath]) -> None:
        self._paths = paths
        # The text of an answer streams by in pieces that no path names.
        self._output = any(path[0] in ("output", ANY) for path in paths)

    def __bool__(self) -> bool:
        return bool(self._paths)

    def document(self, body: bytes) -> bytes:
        """A JSON document. Raises `Unreadable`."""
        return _encoded(self._redacted(_decoded(body))) if body.strip() else body

    def lines(self, body: bytes) -> bytes:
        """A JSON document a line, the last of which may be cut off: it is left
        out then. Raises `Unreadable`."""
        kept = [line for line in body.split(b"\n") if line.strip()]
        whole = body.endswith(b"\n")
        redacted = [self._event(line) for line in (kept if whole else kept[:-1])]
        if kept and not whole:
            redacted += self._last(kept[-1])
        return b"".join(line + b"\n" for line in redacted)

    def events(self, body: bytes) -> bytes:
        """Server-sent events. One that is cut off is left out, and so are
        comments; data that is no JSON is taken out whole."""
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
    return MARK  # a string where the path goes on: it may hold what is meant


def _list_without(items: list[Any], path: JsonPath) -> list[Any]:
    step, rest = path[0], path[1:]
    if step == ANY:
        return [_without(item, rest) for item in items]
    if isinstance(step, int):
        return [_without(item, rest) if n == step else item
                for n, item in enumerate(items)]  # fmt: skip
    return [_without(item, path) for item in items]  # `input.content` means each


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
        raise Unreadable("It is no JSON.") from error


def _encoded(document: Any) -> bytes:
    return msgspec.json.encode(document)


def _frames(body: bytes) -> Iterator[list[bytes]]:
    """The lines of each event that ended."""
    frame: list[bytes] = []
    for line in body.splitlines():
        if line:
            frame.append(line)
        elif frame:
            yield frame
            frame = []


def _value(line: bytes) -> bytes:
    return line.partition(b":")[2].removeprefix(b" ")
