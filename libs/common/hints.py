"""What routing and isolation need to know of a request, read from its bytes. Pure.

Nothing is built that is not used. A body that is no JSON, or of another shape, gives
no hints and is forwarded all the same; isolation is told that it cannot be read."""

import contextlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from libs.common.bodies import (
    NULL,
    ODD_JSON,
    Body,
    Container,
    Item,
    Message,
    Metadata,
    Named,
    Part,
    Parts,
    Prompt,
    Tool,
    WholeBody,
    WholeItem,
    WholeTool,
)

Header = tuple[bytes, bytes]

# Ids that upstreams mint (responses-api.md section 6), and clients send back.
MINTED = ("resp_", "conv_", "rs_", "msg_", "fc_", "fco_", "ctc_", "ws_", "fs_", "ci_",
          "ig_", "mcp_", "cmp_", "at_", "file-", "file_", "vs_", "cntr_", "cfile_",
          "batch_", "upload_")  # fmt: skip
# Codex makes up ids of its own in the same form, with a UUID (section 2.2).
_OWN = re.compile(
    r"[a-z]+_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
)
MOST_ITEMS = 8  # so many of the newest item ids are looked up
MOST_OBJECTS = 4  # and of the files, vector stores and containers
MOST_SEGMENTS = 8
MOST_CHECKED = 512  # ids of one request that isolation looks up
LONGEST_ID = 512
_PATH_WORDS = frozenset({"file_batches"})  # look like ids
# Why a body cannot be isolated.
UNREADABLE = "unreadable"
TOO_MANY_IDS = "too_many_ids"
MULTIPART = "multipart"

_SESSION_HEADERS = (
    b"x-proxy-session-id",
    b"x-session-id",
    b"session-id",
    b"session_id",
)
_POOL_HEADERS = (b"x-proxy-pool-id", b"x-pool-id")
_NAME_HEADERS = (b"x-proxy-session-name", b"x-session-name")
_INTERESTING = frozenset(_SESSION_HEADERS + _POOL_HEADERS + _NAME_HEADERS)
_EMPTY_VALUES = (b"null", b'""')
# Items whose content is their arguments, or their input.
_CALLS = frozenset({"function_call", "custom_tool_call"})
_NO_METADATA = Metadata()
_NOTHING = Body()
_NO_BODY = WholeBody()

_decoder = msgspec.json.Decoder(Body)
_whole_decoder = msgspec.json.Decoder(WholeBody)


class Hints(msgspec.Struct, frozen=True, gc=False):
    """`bound_ids`: upstream ids the request names, the most telling first. `named`,
    `references` and `problem` are for isolation alone (`read_hints`):

    `named`: ids that clients do not make up. `references`: ids of input items that
    the upstream has to look up, and the newest ones. `problem`: why these may not be
    all."""

    model: str | None = None
    stream: bool = False
    session_id: str | None = None
    session_name: str | None = None
    pool_id: str | None = None
    previous_response_id: str | None = None
    bound_ids: tuple[str, ...] = ()
    account_bound: bool = False
    background: bool = False
    named: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    problem: str | None = None


class _Items(msgspec.Struct, gc=False):
    """What the input's items name, newest first."""

    ids: list[str]
    files: list[str]
    encrypted: bool = False


_NO_ITEMS = _Items([], [])


def read_hints(
    path: bytes, headers: Iterable[Header], body: bytes, isolate: bool = False
) -> Hints:
    """Hints of a request to `path` (raw, below /v1) with an opened `body`. With
    `isolate` also every upstream id that it names."""
    told = {name: value for name, value in headers if name in _INTERESTING}
    if not body:
        return _hints(path, told, _NO_BODY if isolate else _NOTHING, None)
    parsed: Body
    try:
        if not isolate:
            return _hints(path, told, _decoder.decode(body), None)
        parsed = _whole_decoder.decode(body)
        problem = None if body.isascii() or _is_utf8(body) else UNREADABLE
    except ODD_JSON:
        parsed = _parse_by_field(body, WholeBody if isolate else Body)
        problem = _problem(body, headers) if isolate else None
    return _hints(path, told, parsed, problem)


def _hints(
    path: bytes, told: dict[bytes, bytes], parsed: Body, problem: str | None
) -> Hints:
    metadata = parsed.metadata or _NO_METADATA
    client = parsed.client_metadata or _NO_METADATA
    given = parsed.input
    items = _read_input(given) if isinstance(given, list) else _NO_ITEMS
    previous = _text(parsed.previous_response_id)
    first = _first_ids(previous, path, parsed.conversation)
    named: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    if isinstance(parsed, WholeBody):
        named = _once(first + _all_objects(parsed))
        references = _once(items.ids + _references(parsed))
        if len(named) + len(references) > MOST_CHECKED:
            problem = problem or TOO_MANY_IDS
    return Hints(
        model=_text(parsed.model),
        stream=parsed.stream is True,
        session_id=_first(told, _SESSION_HEADERS)
        or _text(metadata.session_id)
        or _text(client.session_id)
        or _text(parsed.prompt_cache_key),
        session_name=_first(told, _NAME_HEADERS) or _text(metadata.session_name),
        pool_id=_first(told, _POOL_HEADERS) or _text(metadata.pool_id),
        previous_response_id=previous,
        bound_ids=(*first, *items.ids, *_objects(parsed, items.files)),
        account_bound=items.encrypted,
        background=parsed.background is True,
        named=named,
        references=references,
        problem=problem,
    )


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _once(ids: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(ids)) if ids else ()


# Odd bodies --------------------------------------------------------------------


def _problem(body: bytes, headers: Iterable[Header]) -> str | None:
    """What is wrong with a body that msgspec refused."""
    try:
        if isinstance(json.loads(body.decode(), parse_constant=_refuse), dict):
            return None
    except ODD_JSON:
        pass
    kinds = [value for name, value in headers if name == b"content-type"]
    return MULTIPART if _is_multipart(kinds) else UNREADABLE


def _refuse(constant: str) -> None:
    """NaN and the infinities are no JSON."""
    raise ValueError(constant)


def _is_multipart(kinds: Sequence[bytes]) -> bool:
    return bool(kinds) and all(k.lower().startswith(b"multipart/") for k in kinds)


def _parse_by_field(body: bytes, kind: type[Body]) -> Body:
    """One odd value (half an emoji, another shape) costs no other hint."""
    parsed = kind()
    try:
        fields = json.loads(body.decode("utf-8", "replace"))
    except ODD_JSON:
        return parsed
    if isinstance(fields, dict):
        _take_fields(parsed, fields)
    return parsed


def _take_fields(parsed: msgspec.Struct, fields: dict[str, Any]) -> None:
    for field in msgspec.structs.fields(parsed):
        given = fields.get(field.name)
        if given is None:
            continue
        if field.type is msgspec.Raw:
            setattr(parsed, field.name, msgspec.Raw(json.dumps(given).encode()))
        elif field.name in ("input", "items") and isinstance(given, list):
            kind = WholeItem if isinstance(parsed, WholeBody) else Item
            setattr(parsed, field.name, [_item(kind, i) for i in given])
        else:
            with contextlib.suppress(*ODD_JSON):
                setattr(parsed, field.name, msgspec.convert(given, field.type))


def _item(kind: type[Item], fields: Any) -> Item | None:
    if not isinstance(fields, dict):
        return None
    item = kind()
    _take_fields(item, fields)
    return item


# Affinity ----------------------------------------------------------------------


def _read_input(given: Sequence[Any]) -> _Items:
    """Ids of the newest minted items and of files; is anything encrypted?"""
    ids: list[str] = []
    files: list[str] = []
    encrypted = False
    for item in reversed(given):
        if not isinstance(item, Item):
            continue
        id_ = item.id
        if id_ is not None and len(ids) < MOST_ITEMS and is_minted(id_):
            ids.append(id_)
        content = item.content
        if type(content) is list and len(files) < MOST_OBJECTS:
            files += [id_ for id_ in _files(content) if is_minted(id_)]
        if item.encrypted_content is not NULL and not encrypted:
            encrypted = _is_there(item.encrypted_content)
    return _Items(ids, files, encrypted)


def _files(parts: Parts) -> list[str]:
    """Files that a content or an output names."""
    named: list[str] = []
    for part in parts if isinstance(parts, list) else (parts,):
        if isinstance(part, Part):
            if part.file_id:
                named.append(part.file_id[:LONGEST_ID])
            if part.file is not None:
                named += _ids(part.file)
    return named


def _objects(parsed: Body, files: Sequence[str]) -> list[str]:
    """Files, vector stores and containers: each belongs to one account."""
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
        if isinstance(tool, WholeTool) and tool.input_image_mask is not None:
            named += _ids(tool.input_image_mask)
    return named


def _ids(given: object) -> list[str]:
    """Ids that a value names: it is one, or names some in the usual way."""
    if isinstance(given, Named):
        given = given.file_id
    elif isinstance(given, Container):
        given = given.file_ids
    if isinstance(given, str):
        return [given[:LONGEST_ID]] if given else []
    if isinstance(given, list):
        return [id_ for one in given for id_ in _ids(one)]
    return []


def _first_ids(
    previous: str | None, path: bytes, conversation: str | Named | None
) -> list[str]:
    found = [previous] if previous else []
    found += ids_in_path(path)
    if isinstance(conversation, Named):
        conversation = conversation.id
    if conversation:
        found.append(conversation[:LONGEST_ID])
    return found


# Isolation ---------------------------------------------------------------------


def _all_objects(parsed: WholeBody) -> list[str]:
    """Files, vector stores, containers and the like, wherever they are named."""
    named: list[str] = []
    if not _names_no_object(parsed):
        named += _own_objects(parsed)
    if parsed.tools is not None:
        named += _of_tools(parsed.tools)
    for items in (parsed.input, parsed.items):
        if isinstance(items, list):
            _take_files(items, named)
    if parsed.messages is not None:
        _take_files_of_messages(parsed.messages, named)
    others = (
        *(parsed.prompt, parsed.files, parsed.images, parsed.mask),
        *(parsed.input_image_mask, parsed.input_reference, parsed.training_file),
        *(parsed.validation_file, parsed.tool_resources),
    )
    if any(others):
        named += _of_rare_fields(parsed)
    return named


def _of_rare_fields(parsed: WholeBody) -> list[str]:
    named = [*_ids(parsed.training_file), *_ids(parsed.validation_file)]
    files: list[object] = [*(parsed.files or ()), *(parsed.images or ())]
    files += (parsed.mask, parsed.input_image_mask, parsed.input_reference)
    if isinstance(parsed.prompt, Prompt):
        files += (parsed.prompt.variables or {}).values()
    for file in files:
        if isinstance(file, Named):  # text is no id here
            named += _ids(file)
    resources = parsed.tool_resources
    if resources is not None:
        named += _ids(resources.code_interpreter)
        if resources.file_search is not None:
            named += _ids(resources.file_search.vector_store_ids)
    return named


def _take_files(items: Sequence[Any], named: list[str]) -> None:
    for item in items:
        if isinstance(item, WholeItem):
            if item.file_id:
                named.append(item.file_id[:LONGEST_ID])
            content, output = item.content, item.output
            if content is not None and type(content) is not str:
                named += _files(content)
            if output is not None and type(output) is not str:
                named += _files(output)


def _take_files_of_messages(
    messages: Iterable[Message | None], named: list[str]
) -> None:
    for message in messages:
        if message is not None and type(message.content) is not str:
            named += _files(message.content)


def _references(parsed: WholeBody) -> list[str]:
    """Ids of items that come without their content, newest first."""
    found: list[str] = []
    for given in (parsed.input, parsed.items):
        if not isinstance(given, list):
            continue
        for item in reversed(given):
            if not isinstance(item, WholeItem) or item.id is None:
                continue
            if is_minted(item.id) and not _carries_itself(item):
                found.append(item.id)
    return found


def _carries_itself(item: WholeItem) -> bool:
    """Does the upstream need no look at its store to know this item?"""
    if _is_there(item.encrypted_content):
        return True
    kind = item.type
    if kind is None or kind == "message":
        return bool(item.content) and (kind is not None or item.role is not None)
    if kind in _CALLS:
        return _is_there(item.arguments) or _is_there(item.input)
    return kind.endswith("_output") and item.output is not None


def _is_there(value: msgspec.Raw) -> bool:
    return value is not NULL and bytes(value) not in _EMPTY_VALUES


def ids_in_path(path: bytes) -> list[str]:
    """`/responses/resp_1/input_items` names resp_1."""
    if path.find(b"/", 1) < 0:
        return []
    segments = path.decode("latin-1").split("/", MOST_SEGMENTS)[:MOST_SEGMENTS]
    return [s for s in segments if is_minted(s) and s not in _PATH_WORDS]


def is_minted(value: object) -> bool:
    """Is this an id as upstreams make them, and not a client's own?"""
    return (
        isinstance(value, str)
        and value.startswith(MINTED)
        and len(value) <= LONGEST_ID
        and (value[-37:-36] != "_" or _OWN.fullmatch(value) is None)
    )


def _text(value: object) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    if len(value) <= LONGEST_ID and value.isascii():
        return value
    return value[:LONGEST_ID].encode("utf-8", "replace").decode()


def _first(named: dict[bytes, bytes], wanted: Sequence[bytes]) -> str | None:
    if not named:
        return None
    for name in wanted:
        value = named.get(name)
        if value:
            return value.decode("utf-8", "replace")[:LONGEST_ID]
    return None
