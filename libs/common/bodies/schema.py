"""Readers for the objects and lists of a body, which can be fed in parts. They are
derived from the types in `shapes.py`. Pure."""

import contextlib
import json
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from libs.common.bodies.minted_ids import LONGEST_ID
from libs.common.bodies.named_ids import MOST_CHECKED, files_of
from libs.common.bodies.shapes import (
    NULL,
    ODD_JSON,
    Item,
    Message,
    Named,
    Part,
    Shape,
    Tool,
    WholeItem,
    WholeTool,
)

PRESENT = msgspec.Raw(b"true")  # replaces a value that is not kept
_ABSENT = msgspec.Raw(b"")
LENIENT_GROUP = 200  # elements per step of the lenient reader; each takes about 10 us
MOST_KEPT = 2 * MOST_CHECKED  # list elements kept per body
LENIENT_ERRORS = (*ODD_JSON, TypeError)
# Members of a body that name state. JSON parsers differ in which of two members of one
# name they keep.
NAMED_ONCE = frozenset({"previous_response_id", "conversation"})


class Malformed(Exception):
    """The text is not JSON."""


class TooMuch(Exception):
    """The depth limit or the work limit was reached."""


def parse_leniently(text: bytes) -> Any:
    """Parse JSON that msgspec rejects: half a surrogate pair, invalid UTF-8. Raises
    `Malformed` if it is not JSON at all. `text` must be short."""
    try:
        return json.loads(
            text.decode("utf-8", "replace"), parse_constant=_no_json, parse_int=float
        )
    except ODD_JSON:
        raise Malformed from None


def named_once(members: bytes) -> list[str]:
    """The names of NAMED_ONCE among these members, one of them twice if it is there
    twice. `members` must be short."""
    text = "{" + members.decode("utf-8", "replace") + "}"
    try:
        pairs = json.loads(text, object_pairs_hook=list, parse_int=float)
    except ODD_JSON:
        raise Malformed from None
    return [name for name, _ in pairs if name in NAMED_ONCE]


def text_of(text: bytes) -> str:
    """Decode a JSON string."""
    try:
        return _strings.decode(text)
    except ODD_JSON:
        return str(parse_leniently(text))


def _no_json(constant: str) -> None:
    raise ValueError(constant)  # NaN or an infinity


class Skipped:
    """Checks the content of brackets or quotes without keeping it."""

    def __init__(self, opening: bytes, closing: bytes) -> None:
        self._opening, self._closing = opening, closing

    def is_strict(self, text: bytes) -> bool:
        """Whether msgspec accepts it as JSON."""
        try:
            _skipper.decode(self._opening + text + self._closing)
        except ODD_JSON:
            return False
        return True

    def check(self, text: bytes) -> None:
        """Raises `Malformed` if it is not JSON."""
        if not self.is_strict(text):
            parse_leniently(self._opening + text + self._closing)


_strings = msgspec.json.Decoder(str)
_skipper = msgspec.json.Decoder(msgspec.Raw)
SKIPPED = {
    b"{": Skipped(b"{", b"}"),
    b"[": Skipped(b"[", b"]"),
    b'"': Skipped(b'"', b'"'),
}


class Fields:
    """Reads an object into a struct."""

    def __init__(self, kind: type[Shape]) -> None:
        self.kind = kind
        types_ = get_type_hints(kind)
        self._decoders = {n: msgspec.json.Decoder(t) for n, t in types_.items()}
        self._types = types_
        self.inner = {name: levels_of(type_) for name, type_ in types_.items()}
        raw = [(name, msgspec.Raw, _ABSENT) for name in types_]
        twin = msgspec.defstruct(f"Raw{kind.__name__}", raw, gc=False)
        self._raws = msgspec.json.Decoder(twin)

    def empty(self) -> Shape:
        return self.kind()

    def take(self, into: Shape, text: bytes) -> list[str]:
        """Read members into `into`; return the names of those that were read."""
        document = b"{" + text + b"}"
        found = []
        try:
            raws = self._raws.decode(document)
        except ODD_JSON:
            return self._take_lenient(into, parse_leniently(document))
        for name in self._types:
            raw = getattr(raws, name)
            if raw is not _ABSENT:
                found.append(name)
                self._set(into, name, raw)
        return found

    def _set(self, into: Shape, name: str, raw: msgspec.Raw) -> None:
        if self._types[name] is msgspec.Raw:
            setattr(into, name, raw if len(bytes(raw)) < 8 else PRESENT)
            return
        try:
            setattr(into, name, self._decoders[name].decode(raw))
        except ODD_JSON:
            self._set_lenient(into, name, parse_leniently(bytes(raw)))

    def _take_lenient(self, into: Shape, members: dict[str, Any]) -> list[str]:
        found = [name for name in self._types if name in members]
        for name in found:
            self._set_lenient(into, name, members[name])
        return found

    def _set_lenient(self, into: Shape, name: str, value: Any) -> None:
        type_ = self._types[name]
        if type_ is msgspec.Raw:
            setattr(into, name, PRESENT if value not in (None, "") else NULL)
            return
        self.clear(into, name)
        with contextlib.suppress(*LENIENT_ERRORS):
            setattr(into, name, as_type(value, type_))

    def clear(self, into: Shape, name: str) -> None:
        """Forget an earlier member of the same name: the last one counts."""
        setattr(into, name, NULL if self._types[name] is msgspec.Raw else None)

    def set_large(self, into: Shape, name: str, value: Any) -> None:
        """Set a member that is too large for `take`: the start of a string, or the
        result of reading a container."""
        type_ = self._types[name]
        if type_ is msgspec.Raw:
            setattr(into, name, PRESENT)
        elif not isinstance(value, str) or str in get_args(type_):
            setattr(into, name, value)


class Elements:
    """Reads a list, or the values of an object with arbitrary names."""

    def __init__(self, element: Any, is_object: bool = False) -> None:
        self._opening, self._closing = (b"{", b"}") if is_object else (b"[", b"]")
        self._is_object = is_object
        self.element = element
        self.inner = levels_of(element)
        self._decoder = msgspec.json.Decoder(
            dict[str, element] if is_object else list[element]
        )

    def read(self, text: bytes, *, newest_first: bool = False) -> Iterator[list[Any]]:
        """Yield all elements, in groups."""
        document = self._opening + text + self._closing
        try:
            found = self._decoder.decode(document)
        except ODD_JSON:
            yield from self._read_lenient(document, newest_first)
            return
        yield list(found.values() if isinstance(found, dict) else found)

    def _read_lenient(self, document: bytes, newest_first: bool) -> Iterator[list[Any]]:
        values = parse_leniently(document)
        values = list(values.values()) if self._is_object else values
        starts = range(0, len(values), LENIENT_GROUP)
        for start in reversed(starts) if newest_first else starts:
            some = values[start : start + LENIENT_GROUP]
            yield [_or_none(value, self.element) for value in some]


class Room:
    """Counts the elements kept of a body against their limit."""

    def __init__(self) -> None:
        self.left = MOST_KEPT
        self.overflow = False

    def take(self) -> bool:
        self.left -= 1
        self.overflow = self.overflow or self.left < 0
        return self.left >= 0


class Kept(list[Any]):
    """The elements of a list that name ids."""

    def __init__(self, room: Room) -> None:
        super().__init__()
        self._room = room
        self.seen = False

    def __bool__(self) -> bool:
        """Whether the list has elements, kept or not."""
        return self.seen

    def keep(self, found: Iterable[Any]) -> None:
        """Keep the elements that name ids."""
        self.seen = True
        for one in [one for one in found if one is not None and _names[type(one)](one)]:
            if not self._room.take():
                return
            self.append(one)


def slim(item: Item) -> None:
    """Drop the texts of a large item."""
    if isinstance(item.content, str):
        item.content = item.content[:1]
    if isinstance(item, WholeItem):
        item.type = item.type and item.type[:LONGEST_ID]
        item.role = item.role and item.role[:1]
        if isinstance(item.output, str):
            item.output = item.output[:1]
    # One more character than allowed, so that a too long id stays too long.
    item.id = item.id and item.id[: LONGEST_ID + 1]
    item.file_id = item.file_id and item.file_id[: LONGEST_ID + 1]
    if isinstance(item, WholeItem):
        item.container_id = item.container_id and item.container_id[: LONGEST_ID + 1]


_names: dict[type, Callable[[Any], object]] = {
    str: lambda text: len(text) <= LONGEST_ID,
    Part: lambda part: part.file_id is not None or part.file is not None,
    Named: lambda named: named.file_id,
    Message: lambda message: (
        type(message.content) is not str and files_of(message.content)
    ),
    Tool: lambda tool: tool.vector_store_ids or tool.container,
    WholeTool: lambda t: (
        t.vector_store_ids or t.container or t.input_image_mask or t.environment
    ),
}


def keep(kind: type[Shape], if_: Callable[[Any], object]) -> None:
    """Register a condition for keeping list elements of another shape."""
    _names[kind] = if_


# From types ----------------------------------------------------------------------

Level = Fields | Elements
Levels = dict[bytes, Level]

_fields: dict[type[Shape], Fields] = {}


def fields_of(kind: type[Shape]) -> Fields:
    if kind not in _fields:
        _fields[kind] = Fields(kind)
    return _fields[kind]


def levels_of(type_: Any) -> Levels:
    """Return the readers for an object and a list where `type_` is expected."""
    levels: Levels = {}
    for one in _alternatives(type_):
        if isinstance(one, type) and issubclass(one, Shape):
            levels[b"{"] = fields_of(one)
        elif get_origin(one) is dict:
            levels[b"{"] = Elements(get_args(one)[1], is_object=True)
        elif get_origin(one) is list and get_args(one)[0] is not msgspec.Raw:
            levels[b"["] = Elements(get_args(one)[0])
    return levels


def _alternatives(type_: Any) -> tuple[Any, ...]:
    union = get_origin(type_) in (Union, types.UnionType)
    return get_args(type_) if union else (type_,)


def as_type(value: Any, type_: Any) -> Any:
    """Convert `value` as msgspec would, but replace only the parts of a wrong type by
    None. Raises one of LENIENT_ERRORS if `value` itself has a wrong type."""
    for one in _alternatives(type_):
        if isinstance(value, dict) and isinstance(one, type) and issubclass(one, Shape):
            shape = one()
            fields_of(one)._take_lenient(shape, value)
            return shape
        if isinstance(value, dict) and get_origin(one) is dict:
            return {name: _or_none(v, get_args(one)[1]) for name, v in value.items()}
        if isinstance(value, list) and get_origin(one) is list:
            return [_or_none(v, get_args(one)[0]) for v in value]
    return msgspec.convert(value, type_)


def _or_none(value: Any, type_: Any) -> Any:
    try:
        return as_type(value, type_)
    except LENIENT_ERRORS:
        return None
