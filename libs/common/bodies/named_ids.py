"""Collects the upstream ids in a body. Pure."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import astuple

from libs.common.bodies.minted_ids import LONGEST_ID, is_minted
from libs.common.bodies.shapes import (
    ITEMS,
    MESSAGES,
    NULL,
    OBJECTS,
    OTHERS,
    OUTPUT,
    RARE,
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
_WholeItem: Final = WholeItem
_WholeTool: Final = WholeTool
_NULL: Final = NULL
_members_of: Final[Callable[[Any], tuple[Any, ...]]] = astuple
_OBJECTS: Final = OBJECTS
_OTHERS: Final = OTHERS
_RARE: Final = RARE
_NO_OBJECTS: Final = _members_of(WholeBody())[OBJECTS]
_NO_OTHERS: Final = _members_of(WholeBody())[OTHERS]
_NO_RARE: Final = _members_of(WholeBody())[RARE]
_NO_IDS: Final[tuple[str, ...]] = ()
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
        if item.encrypted_content is not _NULL and not self.encrypted:
            self.encrypted = _is_there(item.encrypted_content)
        if isinstance(item, _WholeItem) and (
            minted or type(content) is not str or not _names_nothing(_members_of(item))
        ):
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
        # `isinstance` asks the class of a struct for its opinion.
        if type(item) is _WholeItem or isinstance(item, _Item):
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
    """Whether the members of a `WholeItem`, except its content, name no file and no
    container."""
    return (
        members[3] is None
        and members[4] is None
        and members[5] is None
        and members[OUTPUT] is None
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
    """Whether the body has members that `objects` or `other_objects` read. `members`:
    all those of a `Body`, in the order of its class."""
    return members[_OBJECTS] != _NO_OBJECTS or (
        len(members) > ITEMS and members[_OTHERS] != _NO_OTHERS
    )


def objects(members: tuple[Any, ...]) -> Sequence[str]:
    """Return the ids of files, vector stores and containers that a `Body` with these
    members names, without those in items."""
    found = members[_OBJECTS]
    if found == _NO_OBJECTS:
        return _NO_IDS
    tools, file_id, file_ids, input_file_id = found
    named: list[str] = []
    for given in (file_id, input_file_id, file_ids):
        if given is not None:  # a call takes longer
            named += _ids(given)
    if tools is not None:
        named += _of_tools(tools)
    return named


def owned(files: Sequence[str], named: Sequence[str]) -> list[str]:
    """Return the first ids that upstreams created: their objects belong to one account.
    `files`: those in items, `named`: `objects`."""
    return [id_ for id_ in (*files, *named) if is_minted(id_)][:MOST_OBJECTS]


def _of_tools(tools: Iterable[Tool | None]) -> list[str]:
    named: list[str] = []
    for tool in tools:
        if tool is None:
            continue
        if tool.vector_store_ids is not None:
            named += _ids(tool.vector_store_ids)
        if tool.container is not None:
            named += _ids(tool.container)
        if isinstance(tool, _WholeTool):
            mask, environment = tool.input_image_mask, tool.environment
            if mask is not None:
                named += _ids(mask)
            if environment is not None:
                named += _ids(environment)
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


def other_objects(members: tuple[Any, ...]) -> list[str]:
    """Return the object ids that a `WholeBody` with these members names besides
    `objects`, without those in items."""
    named: list[str] = []
    messages = members[MESSAGES]
    if messages is not None:
        _take_files_of_messages(messages, named)
    rare = members[_RARE]
    if rare != _NO_RARE:
        named += _of_rare_fields(rare)
    return named


def _of_rare_fields(rare: tuple[Any, ...]) -> list[str]:
    (
        prompt, some, images, mask, image_mask, reference, training, validation,
        resources,
    ) = rare  # fmt: skip
    named = [*_ids(training), *_ids(validation)]
    files: list[object] = [*(some or ()), *(images or ())]
    files += (mask, image_mask, reference)
    if isinstance(prompt, Prompt):
        variables = prompt.variables or ()
        files += variables.values() if isinstance(variables, dict) else variables
    for file in files:
        if isinstance(file, Named):  # a plain string is not an id here
            named += _ids(file)
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
