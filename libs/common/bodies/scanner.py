"""A large JSON body read in small steps, without building it. Pure.

msgspec and json hold the interpreter for a whole call, so a call gets one slice of a
few kilobytes. Regular expressions find a slice that holds whole members or elements.
They are lax: msgspec then reads the slice, and refuses what is no JSON. What does not
fit into a slice (a long text, a large item) is entered, or skipped in steps.

`steps` gives control back after each piece of work. Whoever drives it decides when to
let others run, and may stop at any time."""

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
    SKIPPED,
    Elements,
    Fields,
    Kept,
    Malformed,
    Room,
    TooMuch,
    fields_of,
    text_of,
)
from libs.common.bodies.shapes import Shape

STEP = 16_384  # bytes read at once
SMALLEST = 2_048  # of such slices, where little fits in
LONGEST_SCALAR = 4_300  # characters of a number; Python's json takes no more
LONGEST_ESCAPE = 6
LONGEST_KEY = 512  # bytes; no name that matters is longer, all of it escapes
LONGEST_TEXT = 8 * LONGEST_ID  # bytes of a long text that are read
MOST_DEPTH = 1_000
# Work is counted in bytes that were looked at; what is handled alone counts for more.
ALONE = 128
CHEAP = 8  # long texts and spaces count for so much less
MOST_PASSES = 4  # over a body
SPARE_WORK = 4_194_304  # beside them

COMMA = ord(",")
IN_TEXT = SKIPPED[b'"']
Step = Generator[None, None, int]  # gives the place that was reached


class Scan:
    """Reads `body` as `kind`. When `steps` has ended, `parsed` has what was found;
    it is None when the body is no JSON object."""

    def __init__(self, body: bytes, kind: type[Shape], utf8: bool = False) -> None:
        """`utf8`: look whether all of it is UTF-8."""
        self._body = body
        self._utf8 = utf8
        self._frames = [Frame(b"{", fields_of(kind))]
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
                self._frames[-1].put(value)
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
            elif self._body[end - 1] == COMMA:
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
                self._frames[-1].put(value)
        return pos

    def _run(self, pos: int) -> Step:
        """Take whole elements, as many as fit into a slice. Returns where they end."""
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
        """Read elements that are whole."""
        text, level, value = self._body[start:end], frame.level, frame.value
        if isinstance(level, Fields):
            names = level.take(value, text)
            if "model" in names and len(self._frames) == 1:
                self._model, self._model_run = None, (start, end)
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
        """From a member's name to its value."""
        found = KEY.match(self._body, pos, pos + LONGEST_KEY)
        frame.key = None
        if found is not None:
            end, name = found.end(), text_of(found[0])
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
        """Of a long text the beginning is enough."""
        kept = self._body[start + 1 : min(end - 1, start + LONGEST_TEXT)]
        whole = TEXT.match(kept)
        assert whole is not None
        frame.put(text_of(b'"' + whole[0] + b'"'))

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
        if limit < len(body) and not cuts and IN_TEXT.is_strict(body[pos:limit]):
            return limit  # of most long texts, whatever escapes are in them
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
        """Where the model's value is; None if there is none, or a long one."""
        if self._model_run is None:
            return self._model
        span = None
        for member in MEMBER.finditer(self._body, *self._model_run):
            if text_of(member[1]) == "model":
                start, end = member.span(2)
                span = start, start + len(self._body[start:end].rstrip())
        return span
