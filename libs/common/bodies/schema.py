"""How containers of a body are read piece by piece: which members matter, and what is
kept of them. Made from the shapes of `bodies.py`. Pure."""

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

PRESENT = msgspec.Raw(b"true")  # stands for a value that is not kept
_ABSENT = msgspec.Raw(b"")
MOST_LOOSE = 200  # odd elements that are read at once: each takes some 10 us
MOST_KEPT = 2 * MOST_CHECKED  # elements of lists
LOOSE = (*ODD_JSON, TypeError)


class Malformed(Exception):
    """No JSON."""


class TooMuch(Exception):
    """Too deep, or more work than a body is worth."""


def loosely(text: bytes) -> Any:
    """What msgspec refuses, though it is JSON: half an emoji, bytes that are no
    UTF-8. Raises `Malformed` when it is none. `text` is short."""
    try:
        return json.loads(
            text.decode("utf-8", "replace"), parse_constant=_no_json, parse_int=float
        )
    except ODD_JSON:
        raise Malformed from None


def text_of(text: bytes) -> str:
    """A JSON string, decoded."""
    try:
        return _strings.decode(text)
    except ODD_JSON:
        return str(loosely(text))


def _no_json(constant: str) -> None:
    raise ValueError(constant)  # NaN, or an infinity


class Skipped:
    """What is in brackets or quotes, and of which nothing is kept."""

    def __init__(self, opening: bytes, closing: bytes) -> None:
        self._opening, self._closing = opening, closing

    def is_strict(self, text: bytes) -> bool:
        """Is it JSON as msgspec takes it?"""
        try:
            _skipper.decode(self._opening + text + self._closing)
        except ODD_JSON:
            return False
        return True

    def check(self, text: bytes) -> None:
        """Raises `Malformed` when it is none at all."""
        if not self.is_strict(text):
            loosely(self._opening + text + self._closing)


_strings = msgspec.json.Decoder(str)
_skipper = msgspec.json.Decoder(msgspec.Raw)
SKIPPED = {
    b"{": Skipped(b"{", b"}"),
    b"[": Skipped(b"[", b"]"),
    b'"': Skipped(b'"', b'"'),
}


class Fields:
    """An object that is read as a struct."""

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
        """Read members; returns the names of those that matter."""
        document = b"{" + text + b"}"
        found = []
        try:
            raws = self._raws.decode(document)
        except ODD_JSON:
            return self._take_loosely(into, loosely(document))
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
            self._set_loosely(into, name, loosely(bytes(raw)))

    def _take_loosely(self, into: Shape, members: dict[str, Any]) -> list[str]:
        found = [name for name in self._types if name in members]
        for name in found:
            self._set_loosely(into, name, members[name])
        return found

    def _set_loosely(self, into: Shape, name: str, value: Any) -> None:
        type_ = self._types[name]
        if type_ is msgspec.Raw:
            setattr(into, name, PRESENT if value not in (None, "") else NULL)
            return
        self.clear(into, name)
        with contextlib.suppress(*LOOSE):
            setattr(into, name, as_type(value, type_))

    def clear(self, into: Shape, name: str) -> None:
        """The last member of a name counts."""
        setattr(into, name, NULL if self._types[name] is msgspec.Raw else None)

    def set_large(self, into: Shape, name: str, value: Any) -> None:
        """A member that is too large for `take`: a text's beginning, or what was
        read of a container."""
        type_ = self._types[name]
        if type_ is msgspec.Raw:
            setattr(into, name, PRESENT)
        elif not isinstance(value, str) or str in get_args(type_):
            setattr(into, name, value)


class Elements:
    """A list, or an object of any names, of which those are kept that name ids."""

    def __init__(self, element: Any, is_object: bool = False) -> None:
        self._opening, self._closing = (b"{", b"}") if is_object else (b"[", b"]")
        self._is_object = is_object
        self.element = element
        self.inner = levels_of(element)
        self._decoder = msgspec.json.Decoder(
            dict[str, element] if is_object else list[element]
        )

    def read(self, text: bytes, *, newest_first: bool = False) -> Iterator[list[Any]]:
        """All elements, some at a time."""
        document = self._opening + text + self._closing
        try:
            found = self._decoder.decode(document)
        except ODD_JSON:
            yield from self._read_loosely(document, newest_first)
            return
        yield list(found.values() if isinstance(found, dict) else found)

    def _read_loosely(self, document: bytes, newest_first: bool) -> Iterator[list[Any]]:
        values = loosely(document)
        values = list(values.values()) if self._is_object else values
        starts = range(0, len(values), MOST_LOOSE)
        for start in reversed(starts) if newest_first else starts:
            some = values[start : start + MOST_LOOSE]
            yield [_or_none(value, self.element) for value in some]


class Room:
    """For what is kept of a body."""

    def __init__(self) -> None:
        self.left = MOST_KEPT
        self.overflow = False

    def take(self) -> bool:
        self.left -= 1
        self.overflow = self.overflow or self.left < 0
        return self.left >= 0


class Kept(list[Any]):
    """What is kept of a list."""

    def __init__(self, room: Room) -> None:
        super().__init__()
        self._room = room
        self.seen = False

    def __bool__(self) -> bool:
        """Was there anything in it, kept or not?"""
        return self.seen

    def keep(self, found: Iterable[Any]) -> None:
        """Note elements; those that name no id are not kept."""
        self.seen = True
        for one in [one for one in found if one is not None and _names[type(one)](one)]:
            if not self._room.take():
                return
            self.append(one)


def slim(item: Item) -> None:
    """Of a large item keep no text."""
    if isinstance(item.content, str):
        item.content = item.content[:1]
    if isinstance(item, WholeItem):
        item.type = item.type and item.type[:LONGEST_ID]
        item.role = item.role and item.role[:1]
        if isinstance(item.output, str):
            item.output = item.output[:1]
    # One more than is allowed, so that what is too long stays too long.
    item.id = item.id and item.id[: LONGEST_ID + 1]
    item.file_id = item.file_id and item.file_id[: LONGEST_ID + 1]
    if isinstance(item, WholeItem):
        item.container_id = item.container_id and item.container_id[: LONGEST_ID + 1]


_names: dict[type, Callable[[Any], object]] = {
    str: lambda text: len(text) <= LONGEST_ID,
    Part: lambda part: part.file_id is not None or part.file is not None,
    Named: lambda named: named.file_id,
    Message: lambda said: type(said.content) is not str and files_of(said.content),
    Tool: lambda tool: tool.vector_store_ids or tool.container,
    WholeTool: lambda t: (
        t.vector_store_ids or t.container or t.input_image_mask or t.environment
    ),
}


def keep(kind: type[Shape], if_: Callable[[Any], object]) -> None:
    """Have elements of another shape kept, if `if_` says so."""
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
    """How an object and a list are read where `type_` is expected."""
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
    """`value` as msgspec would have read it; of what has another type only that is
    left out. Raises one of LOOSE when nothing is left."""
    for one in _alternatives(type_):
        if isinstance(value, dict) and isinstance(one, type) and issubclass(one, Shape):
            shape = one()
            fields_of(one)._take_loosely(shape, value)
            return shape
        if isinstance(value, dict) and get_origin(one) is dict:
            return {name: _or_none(v, get_args(one)[1]) for name, v in value.items()}
        if isinstance(value, list) and get_origin(one) is list:
            return [_or_none(v, get_args(one)[0]) for v in value]
    return msgspec.convert(value, type_)


def _or_none(value: Any, type_: Any) -> Any:
    try:
        return as_type(value, type_)
    except LOOSE:
        return None
