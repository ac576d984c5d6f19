"""A large JSON body read in small steps, without building it. Pure.

msgspec and json hold the interpreter for a whole call, so a call gets one slice of a
few kilobytes. Regular expressions find a slice that holds whole members or elements.
They are lax: msgspec then reads the slice, and refuses what is no JSON. What does not
fit into a slice (a long text, a large item) is entered, or skipped in steps.

`steps` gives control back after each piece of work. Whoever drives it decides when to
let others run, and may stop at any time."""

import codecs
import re
from collections import defaultdict, deque
from collections.abc import Generator, Iterator
from typing import Any

import msgspec

from libs.common.bodies.minted_ids import LONGEST_ID
from libs.common.bodies.named_ids import MOST_LOOKED, ItemFacts
from libs.common.bodies.schema import (
    SKIPPED,
    Elements,
    Fields,
    Kept,
    Level,
    Levels,
    Malformed,
    Room,
    TooMuch,
    fields_of,
    loosely,
    slim,
)
from libs.common.bodies.shapes import ODD_JSON, Item, Shape

STEP = 16_384  # bytes read at once
SMALLEST = 2_048  # of such slices, where little fits in
LONGEST_SCALAR = 4_300  # characters of a number; Python's json takes no more
LONGEST_ESCAPE = 6
LONGEST_KEY = 512  # bytes; no name that matters is longer, all of it escapes
LONGEST_TEXT = 8 * LONGEST_ID  # bytes of a long text that are read
LEVELS = 12  # of nesting that a slice may hold
GUESSES = 3  # where a slice may end, of each kind
MOST_DEPTH = 1_000
# Work is counted in bytes that were looked at; what is handled alone counts for more.
ALONE = 128
CHEAP = 8  # long texts and spaces count for so much less
MOST_PASSES = 4  # over a body
SPARE_WORK = 4_194_304  # beside them

# Loops are atomic groups: possessive ones over groups do not step back in Pythons
# before 3.11.5 (gh-106052).
_STRING = rb'"(?>(?:[^"\\]++|\\.)*)"'
_FLAT = rb'[^"{}\[\],]++|' + _STRING


def _nested(levels: int) -> bytes:
    found = b""
    for _ in range(levels):
        inner = rb",|" + _FLAT + (b"|" + found if found else b"")
        found = rb"[{\[](?>(?:" + inner + rb")*)[}\]]"
    return found


_ELEMENT = rb"(?>(?:" + _FLAT + rb"|" + _nested(LEVELS) + rb")+)"
# Elements, each with its comma.
_run = re.compile(rb"(?>(?:" + _ELEMENT + rb",)*)", re.DOTALL)
_last = re.compile(_ELEMENT + rb"(?=[}\]])", re.DOTALL)
_member = re.compile(
    rb"\s*+(" + _STRING + rb")\s*+:\s*+(" + _ELEMENT + rb"),?+", re.DOTALL
)
_key = re.compile(_STRING, re.DOTALL)
_space = re.compile(rb"[ \t\r\n]*+")
_scalar = re.compile(rb'[^ \t\r\n"{}\[\],:]++')
_text = re.compile(rb'(?>(?:[^"\\]++|\\u....|\\[^u])*)', re.DOTALL)

_first = re.compile(rb"[ \t\r\n]*+([^ \t\r\n])")
# Where one element of a list may end and the next one begin, by the first character of
# the first: in a text a quotation mark would have a backslash.
_ENDS = defaultdict(
    lambda: (b",",),
    {
        b"{": (b'},{"', b'}, {"', b"},"),
        b"[": (b"],",),
        b'"': (b'","', b'", "', b'",'),
    },
)
_strings = msgspec.json.Decoder(str)
_COMMA = ord(",")
_IN_TEXT = SKIPPED[b'"']

Span = tuple[int, int]
Step = Generator[None, None, int]  # gives the place that was reached


class _Frame:
    """A container that is open."""

    __slots__ = ("key", "level", "opening", "value")

    def __init__(self, opening: bytes, level: Level | None) -> None:
        self.opening = opening
        self.level = level
        self.value: Any = None
        self.key: str | None = None  # of the member that is read, if it matters
        if isinstance(level, Fields):
            self.value = level.empty()

    @property
    def closing(self) -> bytes:
        return b"}" if self.opening == b"{" else b"]"

    def levels(self) -> Levels:
        """How to read the container that comes next."""
        if isinstance(self.level, Fields):
            return self.level.inner[self.key] if self.key is not None else {}
        return self.level.inner if self.level is not None else {}


class _Pieces:
    """Items of an input: spans of the body, and large ones that were read."""

    def __init__(self, level: Elements) -> None:
        self.level = level
        self._found: deque[Span | Item | None] = deque(maxlen=MOST_LOOKED + 1)

    def add(self, piece: Span | Item | None) -> None:
        if isinstance(piece, Item):
            slim(piece)
        self._found.append(piece)

    def steps(self, body: bytes, facts: ItemFacts) -> Iterator[None]:
        """The newest first. Each has one item at least."""
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


class Scan:
    """Reads `body` as `kind`. When `steps` has ended, `parsed` has what was found;
    it is None when the body is no JSON object."""

    def __init__(self, body: bytes, kind: type[Shape], utf8: bool = False) -> None:
        """`utf8`: look whether all of it is UTF-8."""
        self._body = body
        self._utf8 = utf8
        self._frames = [_Frame(b"{", fields_of(kind))]
        self._room = Room()
        self._window = STEP
        self._work = SPARE_WORK + MOST_PASSES * len(body)
        self._model_run: Span | None = None  # members; the last `model` is in it
        self._model: Span | None = None  # or that one's value
        self.is_utf8 = True
        self.complete = True  # nothing was given up
        self.parsed: Any = self._frames[0].value
        self.facts = ItemFacts()

    @property
    def overflow(self) -> bool:
        """Was something left out, because there was too much of it?"""
        return self._room.overflow or self.facts.overflow

    def steps(self) -> Iterator[None]:
        try:
            yield from self._document()
        except TooMuch:
            self.complete = False
            while len(self._frames) > 1:
                value = self._frames.pop().value
                self._put(self._frames[-1], value)
        except Malformed:
            self.parsed = None
            return
        yield from self._items()
        if self._utf8:
            yield from self._check_text()

    # Containers ------------------------------------------------------------------

    def _document(self) -> Iterator[None]:
        pos = yield from self._spaces(0)
        if self._body[pos : pos + 1] != b"{":
            raise Malformed
        pos = yield from self._enter(pos + 1)
        while self._frames:
            end = yield from self._run(pos)
            yield
            if end == pos:
                pos = yield from self._alone(pos)
            elif self._body[end - 1] == _COMMA:
                pos = end
            else:
                pos = yield from self._after(end)
        pos = yield from self._spaces(pos)
        if pos != len(self._body):
            raise Malformed

    def _enter(self, pos: int) -> Step:
        """The first element of a container that was opened."""
        pos = yield from self._spaces(pos)
        if self._body[pos : pos + 1] == self._frames[-1].closing:
            return (yield from self._after(pos))
        return pos

    def _after(self, pos: int) -> Step:
        """From behind an element to the next one; closes containers that end here."""
        while self._frames:
            pos = yield from self._spaces(pos)
            mark = self._body[pos : pos + 1]
            pos += 1
            if mark == b",":
                break
            if mark != self._frames[-1].closing:
                raise Malformed
            value = self._frames.pop().value
            if self._frames:
                self._put(self._frames[-1], value)
        return pos

    def _run(self, pos: int) -> Step:
        """Take whole elements, as many as fit into a slice. Returns where they end."""
        body, frame = self._body, self._frames[-1]
        guessed = self._guessed(frame, pos)
        if guessed > pos:
            self._spend(STEP // CHEAP)
            yield from self._take(frame, pos, guessed, checked=True)
            return guessed + 1
        self._spend(self._window)
        limit = pos + self._window
        found = _run.match(body, pos, limit)
        assert found is not None
        end = found.end()
        last = _last.match(body, end, limit)
        if last is not None:
            end = last.end()
        if end == pos:
            self._window = max(SMALLEST, self._window // 4)
            return pos
        self._window = min(STEP, self._window * 2)
        goes_on = body[end - 1] == _COMMA
        yield from self._take(frame, pos, end - 1 if goes_on else end)
        return end

    def _guessed(self, frame: _Frame, pos: int) -> int:
        """The last comma between elements, by a guess that msgspec finds right: what
        is cut elsewhere is no JSON. Ten times as fast as to look at each bracket."""
        limit = pos + STEP
        found = _first.match(self._body, pos, limit)
        if found is None:
            return pos
        marks = _ENDS[found[1]] if frame.opening == b"[" else (b",",)
        for mark in marks:
            below = limit
            for _ in range(GUESSES):
                below = self._body.rfind(mark, pos, below)
                if below < 0:
                    break
                end = below + mark.index(b",")
                if SKIPPED[frame.opening].is_strict(self._body[pos:end]):
                    return end
        return pos

    def _take(
        self, frame: _Frame, start: int, end: int, *, checked: bool = False
    ) -> Iterator[None]:
        """Read elements that are whole."""
        text, level, value = self._body[start:end], frame.level, frame.value
        if isinstance(level, Fields):
            names = level.take(value, text)
            if "model" in names and len(self._frames) == 1:
                self._model, self._model_run = None, (start, end)
        elif level is None or isinstance(value, _Pieces):
            if not checked:
                SKIPPED[frame.opening].check(text)
            if level is not None:
                value.add((start, end))
        else:
            for found in level.read(text):
                value.keep(found)
                yield

    def _put(self, frame: _Frame, value: Any) -> None:
        """Note an element that was not read in one piece."""
        if isinstance(frame.level, Fields):
            if frame.key is not None:
                frame.level.set_large(frame.value, frame.key, value)
        elif isinstance(frame.value, _Pieces):
            frame.value.add(value if isinstance(value, Item) else None)
        elif frame.level is not None:
            frame.value.keep([value])

    # Elements that are read alone --------------------------------------------------

    def _alone(self, pos: int) -> Step:
        self._spend(ALONE)
        frame = self._frames[-1]
        pos = yield from self._spaces(pos)
        if frame.opening == b"{":
            pos = yield from self._key(frame, pos)
        mark = self._body[pos : pos + 1]
        if mark and mark in b"{[":
            self._push(frame, mark)
            return (yield from self._enter(pos + 1))
        if mark == b'"':
            end = yield from self._string(pos)
        else:
            scalar = _scalar.match(self._body, pos, pos + LONGEST_SCALAR)
            if scalar is None:
                raise Malformed
            end = scalar.end()
        if end - pos > max(STEP, LONGEST_SCALAR):
            self._put_text(frame, pos, end)
        elif frame.opening == b"[":
            yield from self._take(frame, pos, end)
        else:
            self._take_value(frame, pos, end)
        return (yield from self._after(end))

    def _take_value(self, frame: _Frame, start: int, end: int) -> None:
        text = self._body[start:end]
        if frame.key is None or not isinstance(frame.level, Fields):
            SKIPPED[b"["].check(text)
            return
        frame.level.take(frame.value, b'"%b":%b' % (frame.key.encode(), text))
        if frame.key == "model" and len(self._frames) == 1:
            self._model = (start, end)

    def _key(self, frame: _Frame, pos: int) -> Step:
        """From a member's name to its value."""
        found = _key.match(self._body, pos, pos + LONGEST_KEY)
        frame.key = None
        if found is not None:
            end, name = found.end(), _decoded(found[0])
            if isinstance(frame.level, Fields) and name in frame.level.inner:
                frame.key = name
                frame.level.clear(frame.value, name)
                if name == "model" and len(self._frames) == 1:
                    self._model = self._model_run = None
        elif self._body[pos : pos + 1] == b'"':
            end = yield from self._string(pos)
        else:
            raise Malformed
        pos = yield from self._spaces(end)
        if self._body[pos : pos + 1] != b":":
            raise Malformed
        return (yield from self._spaces(pos + 1))

    def _push(self, frame: _Frame, opening: bytes) -> None:
        if len(self._frames) >= MOST_DEPTH:
            raise TooMuch
        level = frame.levels().get(opening)
        inner = _Frame(opening, level)
        if isinstance(level, Elements):
            of_items = len(self._frames) == 1 and frame.key in ("input", "items")
            inner.value = _Pieces(level) if of_items else Kept(self._room)
        self._frames.append(inner)

    def _put_text(self, frame: _Frame, start: int, end: int) -> None:
        """Of a long text the beginning is enough."""
        kept = self._body[start + 1 : min(end - 1, start + LONGEST_TEXT)]
        whole = _text.match(kept)
        assert whole is not None
        self._put(frame, _decoded(b'"' + whole[0] + b'"'))

    # What may be long --------------------------------------------------------------

    def _string(self, pos: int) -> Step:
        """The end of the text that begins at `pos`."""
        body = self._body
        pos += 1
        while True:
            end = self._text_end(pos)
            if body[end : end + 1] == b'"':
                return end + 1
            if end == pos:
                raise Malformed
            self._spend((end - pos) // CHEAP)
            pos = end
            yield

    def _text_end(self, pos: int) -> int:
        """The end of a text that goes on at `pos`, or of the next slice of it, which
        cuts no escape in two."""
        body, limit = self._body, pos + STEP
        cuts = body.find(b"\\", max(pos, limit - LONGEST_ESCAPE), limit) >= 0
        if limit < len(body) and not cuts and _IN_TEXT.is_strict(body[pos:limit]):
            return limit  # of most long texts, whatever escapes are in them
        found = _text.match(body, pos, limit)
        end = found.end() if found is not None else pos
        if end > pos:
            _IN_TEXT.check(body[pos:end])
        return end

    def _spaces(self, pos: int) -> Step:
        while True:
            found = _space.match(self._body, pos, pos + STEP)
            end = found.end() if found is not None else pos
            if end < pos + STEP:
                return end
            self._spend(STEP // CHEAP)
            pos = end
            yield

    def _check_text(self) -> Iterator[None]:
        decoder = codecs.getincrementaldecoder("utf-8")()
        last = len(self._body) - 1
        try:
            for start in range(0, len(self._body), STEP):
                decoder.decode(self._body[start : start + STEP], start + STEP > last)
                yield
        except UnicodeDecodeError:
            self.is_utf8 = False

    def _spend(self, work: int) -> None:
        self._work -= work
        if self._work < 0:
            raise TooMuch

    # Results -----------------------------------------------------------------------

    def _items(self) -> Iterator[None]:
        found = []
        for name in ("input", "items"):
            facts = ItemFacts()
            items = getattr(self.parsed, name, None)
            if isinstance(items, _Pieces):
                yield from items.steps(self._body, facts)
            elif isinstance(items, list):
                facts.take(items)
            found.append(facts)
        self.facts = found[0].joined(found[1])

    @property
    def model_span(self) -> Span | None:
        """Where the model's value is; None if there is none, or a long one."""
        if self._model_run is None:
            return self._model
        span = None
        for member in _member.finditer(self._body, *self._model_run):
            if _decoded(member[1]) == "model":
                start, end = member.span(2)
                span = start, start + len(self._body[start:end].rstrip())
        return span


def _decoded(text: bytes) -> str:
    try:
        return _strings.decode(text)
    except ODD_JSON:
        return str(loosely(text))
