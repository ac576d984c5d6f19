"""Collects the upstream ids in a body. Pure."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import astuple

from libs.common.bodies.minted_ids import LONGEST_ID, is_minted
from libs.common.bodies.shapes import (
    ITEMS,
    NULL,
    OBJECTS,
    OUTPUT,
    RARE,
    Body,
    Container,
    Environment,
    Item,
    Message,
    Named,
    Part,
    Parts,
    Prompt,
    Tool,
    WholeBody,
    WholeItem,
    WholeTool,
)

MOST_ITEMS = 8  # newest item ids to look up for affinity
MOST_OBJECTS = 4  # files, vector stores and containers to look up for affinity
MOST_CHECKED: Final = 512  # ids per request that isolation looks up
MOST_LOOKED: Final = 4_096  # newest items to examine
# Compiled, an imported name is a look-up, and so is each member of a struct.
_Item: Final = Item
_NULL: Final = NULL
_members_of: Final[Callable[[Any], tuple[Any, ...]]] = astuple
_NONE_OF_FOUR: Final = _members_of(WholeBody())[OBJECTS]
_NONE_OF_RARE: Final = _members_of(WholeBody())[RARE]
_EMPTY_VALUES = (b"null", b'""')
# Item types whose content is in `arguments` or `input`.
_CALLS = frozenset({"function_call", "custom_tool_call"})


class ItemFacts:
    """Ids in the items of an input, newest first. All lists are bounded."""

    __slots__ = ("encrypted", "files", "ids", "looked", "named", "overflow",
                 "references")  # fmt: skip

    def __init__(self) -> None:
        self.ids: list[str] = []  # newest item ids created by upstreams
        self.files: list[str] = []  # created by upstreams
        self.encrypted = False
        # For isolation: all files, and ids of items that come without their content.
        self.named: dict[str, None] = {}
        self.references: dict[str, None] = {}
        self.looked = 0
        self.overflow = False  # a limit was exceeded

    def take(self, items: Sequence[Any]) -> None:
        """Examine items, newest last, that are older than those examined before."""
        if self.looked + len(items) > MOST_LOOKED:
            items = items[len(items) + self.looked - MOST_LOOKED :]
            self.overflow = True
        self.looked += len(items)
        for item in reversed(items):
            if isinstance(item, Item):
                self._take(item)

    def joined(self, items: "ItemFacts") -> "ItemFacts":
        """Return a copy with the ids that isolation needs of Conversations API
        items."""
        facts = ItemFacts()
        facts.ids, facts.files, facts.encrypted = self.ids, self.files, self.encrypted
        facts.named = self.named | items.named
        facts.references = self.references | items.references
        facts.overflow = self.overflow or items.overflow
        return facts

    def _take(self, item: Item) -> None:
        id_, content = item.id, item.content
        minted = id_ is not None and is_minted(id_)
        if minted and len(self.ids) < MOST_ITEMS:
            self.ids.append(str(id_))
        if type(content) is list and len(self.files) < MOST_OBJECTS:
            self.files += [id_ for id_ in files_of(content) if is_minted(id_)]
        if item.encrypted_content is not NULL and not self.encrypted:
            self.encrypted = _is_there(item.encrypted_content)
        if isinstance(item, WholeItem) and (minted or not _is_plain(item)):
            self._isolate(item, minted)

    def _isolate(self, item: WholeItem, minted: bool) -> None:
        if len(self.named) + len(self.references) > MOST_CHECKED:
            self.overflow = True
            return
        if minted and not _carries_itself(item):
            self.references[str(item.id)] = None
        if item.file_id:
            self.named[item.file_id[:LONGEST_ID]] = None
        # Histories name the containers of earlier calls, also of calls not seen here.
        for id_ in (*_ids(item.container_id), *_ids(item.environment)):
            self.references[id_] = None
        content, output = item.content, item.output
        if content is not None and type(content) is not str:
            self.named.update(dict.fromkeys(files_of(content)))
        if output is not None and type(output) is not str:
            self.named.update(dict.fromkeys(files_of(output)))


def are_plain(items: Sequence[Any]) -> bool:
    """Whether all items are text messages without ids and encrypted content."""
    for item in items:
        if isinstance(item, _Item):
            members = _members_of(item)
            id_, encrypted, content = members[0], members[1], members[2]
            if (
                id_ is not None
                or encrypted is not _NULL
                or type(content) is not str
                or (len(members) > OUTPUT and not _names_nothing(members))
            ):
                return False
    return len(items) <= MOST_LOOKED


def _names_nothing(members: tuple[Any, ...]) -> bool:
    """Whether the members of a `WholeItem` name no file and no container."""
    return (
        members[3] is None
        and members[4] is None
        and members[5] is None
        and members[OUTPUT] is None
    )


def _is_plain(item: WholeItem) -> bool:
    return (
        type(item.content) is str
        and item.output is None
        and item.file_id is None
        and item.container_id is None
        and item.environment is None
    )


def _carries_itself(item: WholeItem) -> bool:
    """Whether the upstream can process the item without looking it up by id."""
    kind = item.type
    if kind == "item_reference":  # regardless of other members
        return False
    if _is_there(item.encrypted_content):
        return kind is not None
    if kind is None or kind == "message":
        return bool(item.content) and (kind is not None or item.role is not None)
    if kind in _CALLS:
        return _is_there(item.arguments) or _is_there(item.input)
    return kind.endswith("_output") and item.output is not None


def _is_there(value: msgspec.Raw) -> bool:
    return value is not NULL and bytes(value) not in _EMPTY_VALUES


def files_of(parts: Parts) -> list[str]:
    """Return the file ids in a content or an output."""
    named: list[str] = []
    for part in parts if isinstance(parts, list) else (parts,):
        if isinstance(part, Part):
            if part.file_id:
                named.append(part.file_id[:LONGEST_ID])
            if part.file is not None:
                named += _ids(part.file)
    return named


def may_name_objects(members: tuple[Any, ...]) -> bool:
    """Whether the body has members that `objects` or `all_objects` read. `members`:
    all those of a `Body`, in the order of its class."""
    return members[OBJECTS] != _NONE_OF_FOUR or (
        len(members) > ITEMS and members[RARE] != _NONE_OF_RARE
    )


def objects(parsed: Body, files: Sequence[str]) -> list[str]:
    """Return ids of files, vector stores and containers, which belong to one
    account."""
    if not files and _names_no_object(parsed):
        return []
    named = [*files, *_own_objects(parsed), *_of_tools(parsed.tools or ())]
    return [id_ for id_ in named if is_minted(id_)][:MOST_OBJECTS]


def _names_no_object(parsed: Body) -> bool:
    ids = parsed.file_id or parsed.input_file_id or parsed.file_ids
    return ids is None and parsed.tools is None


def _own_objects(parsed: Body) -> list[str]:
    return [
        *_ids(parsed.file_id),
        *_ids(parsed.input_file_id),
        *_ids(parsed.file_ids),
    ]


def _of_tools(tools: Iterable[Tool | None]) -> list[str]:
    named: list[str] = []
    for tool in tools:
        if tool is None:
            continue
        if tool.vector_store_ids is not None:
            named += _ids(tool.vector_store_ids)
        if tool.container is not None:
            named += _ids(tool.container)
        if isinstance(tool, WholeTool):
            named += (*_ids(tool.input_image_mask), *_ids(tool.environment))
    return named


def _ids(given: object) -> list[str]:
    """Return the ids in a value: the value itself, or its id members."""
    if isinstance(given, Named):
        given = given.file_id
    elif isinstance(given, Container):
        given = given.file_ids
    elif isinstance(given, Environment):
        given = [given.container_id, *(given.file_ids or ())]
    if isinstance(given, str):
        return [given[:LONGEST_ID]] if given else []
    if isinstance(given, list):
        return [id_ for one in given for id_ in _ids(one)]
    return []


def all_objects(parsed: WholeBody) -> list[str]:
    """Return all object ids in the body except those in items."""
    named: list[str] = []
    if not _names_no_object(parsed):
        named += _own_objects(parsed)
    if parsed.tools is not None:
        named += _of_tools(parsed.tools)
    if parsed.messages is not None:
        _take_files_of_messages(parsed.messages, named)
    if _has_rare_fields(parsed):
        named += _of_rare_fields(parsed)
    return named


def _has_rare_fields(parsed: WholeBody) -> bool:
    return bool(
        parsed.prompt
        or parsed.files
        or parsed.images
        or parsed.mask
        or parsed.input_image_mask
        or parsed.input_reference
        or parsed.training_file
        or parsed.validation_file
        or parsed.tool_resources
    )


def _of_rare_fields(parsed: WholeBody) -> list[str]:
    named = [*_ids(parsed.training_file), *_ids(parsed.validation_file)]
    files: list[object] = [*(parsed.files or ()), *(parsed.images or ())]
    files += (parsed.mask, parsed.input_image_mask, parsed.input_reference)
    if isinstance(parsed.prompt, Prompt):
        variables = parsed.prompt.variables or ()
        files += variables.values() if isinstance(variables, dict) else variables
    for file in files:
        if isinstance(file, Named):  # a plain string is not an id here
            named += _ids(file)
    resources = parsed.tool_resources
    if resources is not None:
        named += _ids(resources.code_interpreter)
        if resources.file_search is not None:
            named += _ids(resources.file_search.vector_store_ids)
    return named


def _take_files_of_messages(
    messages: Iterable[Message | None], named: list[str]
) -> None:
    for message in messages:
        if message is not None and type(message.content) is not str:
            named += files_of(message.content)
