"""Objects and lists of a large body while they are read. Pure."""

from collections import deque
from collections.abc import Iterator
from typing import Any

from libs.common.bodies.json_patterns import ENDS, FIRST
from libs.common.bodies.named_ids import MOST_LOOKED, ItemFacts
from libs.common.bodies.schema import SKIPPED, Elements, Fields, Level, Levels, slim
from libs.common.bodies.shapes import Item

Span = tuple[int, int]
GUESSES = 3  # ends of a slice to try, for each mark


class Frame:
    """An object or list whose end was not reached yet."""

    __slots__ = ("key", "level", "opening", "value")

    def __init__(self, opening: bytes, level: Level | None) -> None:
        self.opening = opening
        self.level = level
        self.value: Any = None
        self.key: str | None = None  # name of the current member, if it is read
        if isinstance(level, Fields):
            self.value = level.empty()

    @property
    def closing(self) -> bytes:
        return b"}" if self.opening == b"{" else b"]"

    def levels(self) -> Levels:
        """How to read a container nested in this one."""
        if isinstance(self.level, Fields):
            return self.level.inner[self.key] if self.key is not None else {}
        return self.level.inner if self.level is not None else {}

    def guessed_end(self, body: bytes, pos: int, limit: int) -> int:
        """Return the position of the last comma between elements before `limit`, or
        `pos` if none is found. Guesses from marks and lets msgspec confirm: a slice
        cut elsewhere is invalid JSON. Ten times as fast as matching each bracket."""
        found = FIRST.match(body, pos, limit)
        if found is None:
            return pos
        marks = ENDS[found[1]] if self.opening == b"[" else (b",",)
        for mark in marks:
            below = limit
            for _ in range(GUESSES):
                below = body.rfind(mark, pos, below)
                if below < 0:
                    break
                end = below + mark.index(b",")
                if SKIPPED[self.opening].is_strict(body[pos:end]):
                    return end
        return pos

    def put(self, value: Any) -> None:
        """Store an element that was too large for a slice."""
        if isinstance(self.level, Fields):
            if self.key is not None:
                self.level.set_large(self.value, self.key, value)
        elif isinstance(self.value, Pieces):
            self.value.add(value if isinstance(value, Item) else None)
        elif self.level is not None:
            self.value.keep([value])


class Pieces:
    """Items of an input: spans of the body, and large items that were read."""

    def __init__(self, level: Elements) -> None:
        self.level = level
        self._found: deque[Span | Item | None] = deque(maxlen=MOST_LOOKED + 1)

    def add(self, piece: Span | Item | None) -> None:
        if isinstance(piece, Item):
            slim(piece)
        self._found.append(piece)

    def steps(self, body: bytes, facts: ItemFacts) -> Iterator[None]:
        """Read the items into `facts`, newest first."""
        while self._found:
            if facts.looked >= MOST_LOOKED:
                facts.overflow = True
                return
            piece = self._found.pop()
            if isinstance(piece, tuple):
                start, end = piece
                for items in self.level.read(body[start:end], newest_first=True):
                    facts.take(items)
                    yield
            else:
                facts.take([piece])
                yield
