"""Reads a large JSON body in small steps, without building it in memory. Pure.

msgspec and json block the event loop for a whole call, so each call reads a slice of a
few kilobytes. Regular expressions find slices of complete members or elements. They are
lenient: msgspec then parses the slice, and rejects invalid JSON. Values larger than a
slice are read member by member (a large item) or skipped in steps (a long string).

`steps` yields after each unit of work. Its caller decides when to run other tasks, and
may stop at any time."""

import codecs
from collections.abc import Generator, Iterator
from typing import Any

from libs.common.bodies.containers import Frame, Pieces, Span
from libs.common.bodies.json_patterns import (
    KEY,
    LAST,
    MEMBER,
    RUN,
    SCALAR,
    SPACE,
    TEXT,
)
from libs.common.bodies.minted_ids import LONGEST_ID
from libs.common.bodies.named_ids import ItemFacts
from libs.common.bodies.schema import (
    NAMED_ONCE,
    SKIPPED,
    Elements,
    Fields,
    Kept,
    Malformed,
    Room,
    TooMuch,
    fields_of,
    named_once,
    text_of,
)
from libs.common.bodies.shapes import Shape

STEP = 16_384  # bytes of a slice
SMALLEST = 2_048  # bytes of a slice where few elements fit
LONGEST_SCALAR = 4_300  # characters of a number; the limit of Python's json
LONGEST_ESCAPE = 6  # characters of \uXXXX
LONGEST_KEY = 512  # bytes; longer than any name that is read, fully escaped
LONGEST_TEXT = 8 * LONGEST_ID  # bytes kept of a long string
MOST_DEPTH = 1_000
# The work limit counts bytes that were examined.
ALONE = 128  # added for each element that is read alone
CHEAP = 8  # divisor for bytes of long strings and white space
MOST_PASSES = 4  # over a body
SPARE_WORK = 4_194_304  # bytes in addition

COMMA = ord(",")
IN_TEXT = SKIPPED[b'"']
Step = Generator[None, None, int]  # returns the position that was reached


class Scan:
    """Reads `body` as `kind`. After `steps` has ended, `parsed` is the result, or None
    if the body is not a JSON object."""

    def __init__(self, body: bytes, kind: type[Shape], isolate: bool = False) -> None:
        """`isolate`: also find out what `is_utf8` and `repeats` say."""
        self._body = body
        self._isolate = isolate
        self._frames = [Frame(b"{", fields_of(kind))]
        self._room = Room()
        self._window = STEP
        self._work = SPARE_WORK + MOST_PASSES * len(body)
        self._model_run: Span | None = (
            None  # span of members that contains the last `model`
        )
        self._model: Span | None = None  # or the span of its value
        self._once: list[str] = []  # names that were found, of NAMED_ONCE
        self.is_utf8 = True
        self.complete = True  # False if the work or depth limit was reached
        self.parsed: Any = self._frames[0].value
        self.facts = ItemFacts()

    @property
    def overflow(self) -> bool:
        """Whether ids were left out because there are too many."""
        return self._room.overflow or self.facts.overflow

    @property
    def repeats(self) -> bool:
        """Whether the body has two members of a name of NAMED_ONCE."""
        return len(set(self._once)) < len(self._once)

    def steps(self) -> Iterator[None]:
        try:
            yield from self._document()
        except TooMuch:
            self.complete = False
            while len(self._frames) > 1:
                value = self._frames.pop().value
                self._frames[-1].put(value)
        except Malformed:
            self.parsed = None
            return
        yield from self._items()
        if self._isolate:
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
            elif self._body[end - 1] == COMMA:
                pos = end
            else:
                pos = yield from self._after(end)
        pos = yield from self._spaces(pos)
        if pos != len(self._body):
            raise Malformed

    def _enter(self, pos: int) -> Step:
        """Go to the first element of a container, or past an empty one."""
        pos = yield from self._spaces(pos)
        if self._body[pos : pos + 1] == self._frames[-1].closing:
            return (yield from self._after(pos))
        return pos

    def _after(self, pos: int) -> Step:
        """Go from the end of an element to the next one; close containers that end."""
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
                self._frames[-1].put(value)
        return pos

    def _run(self, pos: int) -> Step:
        """Read the complete elements of a slice. Returns where they end."""
        body, frame = self._body, self._frames[-1]
        guessed = frame.guessed_end(body, pos, pos + STEP)
        if guessed > pos:
            self._spend(STEP // CHEAP)
            yield from self._take(frame, pos, guessed, checked=True)
            return guessed + 1
        self._spend(self._window)
        limit = pos + self._window
        found = RUN.match(body, pos, limit)
        assert found is not None
        end = found.end()
        last = LAST.match(body, end, limit)
        if last is not None:
            end = last.end()
        if end == pos:
            self._window = max(SMALLEST, self._window // 4)
            return pos
        self._window = min(STEP, self._window * 2)
        goes_on = body[end - 1] == COMMA
        yield from self._take(frame, pos, end - 1 if goes_on else end)
        return end

    def _take(
        self, frame: Frame, start: int, end: int, *, checked: bool = False
    ) -> Iterator[None]:
        """Read complete elements."""
        text, level, value = self._body[start:end], frame.level, frame.value
        if isinstance(level, Fields):
            names = level.take(value, text)
            if "model" in names and len(self._frames) == 1:
                self._model, self._model_run = None, (start, end)
            if len(self._frames) == 1 and not NAMED_ONCE.isdisjoint(names):
                self._once += named_once(text) if self._isolate else ()
        elif level is None or isinstance(value, Pieces):
            if not checked:
                SKIPPED[frame.opening].check(text)
            if level is not None:
                value.add((start, end))
        else:
            for found in level.read(text):
                value.keep(found)
                yield

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
            scalar = SCALAR.match(self._body, pos, pos + LONGEST_SCALAR)
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

    def _take_value(self, frame: Frame, start: int, end: int) -> None:
        text = self._body[start:end]
        if frame.key is None or not isinstance(frame.level, Fields):
            SKIPPED[b"["].check(text)
            return
        frame.level.take(frame.value, b'"%b":%b' % (frame.key.encode(), text))
        if frame.key == "model" and len(self._frames) == 1:
            self._model = (start, end)

    def _key(self, frame: Frame, pos: int) -> Step:
        """Go from the name of a member to its value."""
        found = KEY.match(self._body, pos, pos + LONGEST_KEY)
        frame.key = None
        if found is not None:
            end, name = found.end(), text_of(found[0])
            if isinstance(frame.level, Fields) and name in frame.level.inner:
                frame.key = name
                frame.level.clear(frame.value, name)
                if name in NAMED_ONCE and len(self._frames) == 1:
                    self._once.append(name)
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

    def _push(self, frame: Frame, opening: bytes) -> None:
        if len(self._frames) >= MOST_DEPTH:
            raise TooMuch
        level = frame.levels().get(opening)
        inner = Frame(opening, level)
        if isinstance(level, Elements):
            of_items = len(self._frames) == 1 and frame.key in ("input", "items")
            inner.value = Pieces(level) if of_items else Kept(self._room)
        self._frames.append(inner)

    def _put_text(self, frame: Frame, start: int, end: int) -> None:
        """Keep the start of a long string."""
        kept = self._body[start + 1 : min(end - 1, start + LONGEST_TEXT)]
        whole = TEXT.match(kept)
        assert whole is not None
        frame.put(text_of(b'"' + whole[0] + b'"'))

    # Long parts --------------------------------------------------------------

    def _string(self, pos: int) -> Step:
        """Return the end of the string that starts at `pos`."""
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
        """Return the end of a string that continues at `pos`, or of its next slice,
        which splits no escape sequence."""
        body, limit = self._body, pos + STEP
        cuts = body.find(b"\\", max(pos, limit - LONGEST_ESCAPE), limit) >= 0
        if limit < len(body) and not cuts and IN_TEXT.is_strict(body[pos:limit]):
            return limit  # the usual case, with or without escapes
        found = TEXT.match(body, pos, limit)
        end = found.end() if found is not None else pos
        if end > pos:
            IN_TEXT.check(body[pos:end])
        return end

    def _spaces(self, pos: int) -> Step:
        while True:
            found = SPACE.match(self._body, pos, pos + STEP)
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
            if isinstance(items, Pieces):
                yield from items.steps(self._body, facts)
            elif isinstance(items, list):
                facts.take(items)
            found.append(facts)
        self.facts = found[0].joined(found[1])

    @property
    def model_span(self) -> Span | None:
        """The position of the value of `model`; None if absent or longer than a
        slice."""
        if self._model_run is None:
            return self._model
        span = None
        for member in MEMBER.finditer(self._body, *self._model_run):
            if text_of(member[1]) == "model":
                start, end = member.span(2)
                span = start, start + len(self._body[start:end].rstrip())
        return span
