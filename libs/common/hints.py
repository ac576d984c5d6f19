"""What routing needs to know of a request, read from its bytes once. Pure.

Nothing is built that routing does not use; a body that is no JSON, or of
another shape, gives no hints and is forwarded all the same.
"""

import contextlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

Header = tuple[bytes, bytes]

NULL = msgspec.Raw(b"null")
# Ids that upstreams mint (responses-api.md section 6), and clients send back.
MINTED = ("resp_", "conv_", "rs_", "msg_", "fc_", "fco_", "ctc_", "ws_", "fs_", "ci_",
          "ig_", "mcp_", "cmp_", "at_", "file-", "vs_", "cntr_", "batch_")  # fmt: skip
# Codex makes up ids of its own in the same form, with a UUID (section 2.2).
_OWN = re.compile(
    r"[a-z]+_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
)
MOST_ITEMS = 8  # so many of the newest item ids are looked up
MOST_OBJECTS = 4  # and of the files, vector stores and containers
MOST_SEGMENTS = 8
LONGEST_ID = 512

_SESSION_HEADERS = (
    b"x-proxy-session-id",
    b"x-session-id",
    b"session-id",
    b"session_id",
)
_POOL_HEADERS = (b"x-proxy-pool-id", b"x-pool-id")
_NAME_HEADERS = (b"x-proxy-session-name", b"x-session-name")
_INTERESTING = frozenset(_SESSION_HEADERS + _POOL_HEADERS + _NAME_HEADERS)


class Hints(msgspec.Struct, frozen=True, gc=False):
    """`bound_ids`: upstream ids the request names, the most telling first."""

    model: str | None = None
    stream: bool = False
    session_id: str | None = None
    session_name: str | None = None
    pool_id: str | None = None
    previous_response_id: str | None = None
    bound_ids: tuple[str, ...] = ()
    account_bound: bool = False


class _Metadata(msgspec.Struct):
    session_id: object = None
    session_name: object = None
    pool_id: object = None


class _Part(msgspec.Struct):
    file_id: object = None


class _Item(msgspec.Struct):
    id: object = None
    encrypted_content: msgspec.Raw = NULL
    content: str | list[_Part | str | None] | None = None
    file_id: object = None


class _Conversation(msgspec.Struct):
    id: object = None


class _Container(msgspec.Struct):
    file_ids: object = None


class _Tool(msgspec.Struct):
    vector_store_ids: object = None
    container: str | _Container | None = None


class _Body(msgspec.Struct):
    model: object = None
    stream: object = None
    previous_response_id: object = None
    conversation: str | _Conversation | None = None
    prompt_cache_key: object = None
    metadata: _Metadata | None = None
    client_metadata: _Metadata | None = None
    tools: list[_Tool] | None = None
    # Of other calls: files into a vector store or a container, a batch.
    file_id: object = None
    file_ids: object = None
    input_file_id: object = None
    input: str | list[_Item | str | int | float | list[Any] | None] | None = None


# Bad UTF-8 and deep nesting are no msgspec errors.
ODD_JSON = (msgspec.MsgspecError, ValueError, RecursionError)
_decoder = msgspec.json.Decoder(_Body)
_TYPES = {field.name: field.type for field in msgspec.structs.fields(_Body)}
_SIMPLE = [name for name in _TYPES if name != "input"]
_CONTENT = list[_Part | str | None] | str | None
_EMPTY = _Body()
_NO_METADATA = _Metadata()
_NO_INPUT: tuple[list[str], list[str], bool] = ([], [], False)


def read_hints(path: bytes, headers: Iterable[Header], body: bytes) -> Hints:
    """Hints of a request to `path` (raw, below /v1) with an opened `body`."""
    parsed = _parse(body)
    named = {name: value for name, value in headers if name in _INTERESTING}
    metadata = parsed.metadata or _NO_METADATA
    client = parsed.client_metadata or _NO_METADATA
    given = parsed.input
    items, files, encrypted = (
        _read_input(given) if isinstance(given, list) else _NO_INPUT
    )
    previous = _text(parsed.previous_response_id)
    return Hints(
        model=_text(parsed.model),
        stream=parsed.stream is True,
        session_id=_first(named, _SESSION_HEADERS)
        or _text(metadata.session_id)
        or _text(client.session_id)
        or _text(parsed.prompt_cache_key),
        session_name=_first(named, _NAME_HEADERS) or _text(metadata.session_name),
        pool_id=_first(named, _POOL_HEADERS) or _text(metadata.pool_id),
        previous_response_id=previous,
        bound_ids=(
            *_bound(previous, path, parsed.conversation, items),
            *_objects(parsed, files),
        ),
        account_bound=encrypted,
    )


def _parse(body: bytes) -> _Body:
    if not body:
        return _EMPTY
    try:
        return _decoder.decode(body)
    except ODD_JSON:
        return _parse_by_field(body)


def _parse_by_field(body: bytes) -> _Body:
    """One odd value (half an emoji, another shape) costs no other hint. Slow,
    but rare; the standard library takes what msgspec refuses."""
    parsed = _Body()
    try:
        fields = json.loads(body.decode("utf-8", "replace"))
    except ODD_JSON:
        return parsed
    if not isinstance(fields, dict):
        return parsed
    for name in _SIMPLE:
        with contextlib.suppress(*ODD_JSON):
            setattr(parsed, name, msgspec.convert(fields.get(name), _TYPES[name]))
    items = fields.get("input")
    if isinstance(items, list):
        parsed.input = [_item(item) for item in items if isinstance(item, dict)]
    return parsed


def _item(fields: dict[str, Any]) -> _Item:
    """Of encrypted content only its being there matters."""
    encrypted = msgspec.Raw(b"{}") if fields.get("encrypted_content") else NULL
    item = _Item(fields.get("id"), encrypted, file_id=fields.get("file_id"))
    with contextlib.suppress(*ODD_JSON):
        item.content = msgspec.convert(fields.get("content"), _CONTENT)
    return item


def _read_input(given: list[Any]) -> tuple[list[str], list[str], bool]:
    """Ids of the newest minted items and of files, newest first; is anything
    encrypted?"""
    ids: list[str] = []
    files: list[str] = []
    encrypted = False
    for item in reversed(given):
        if not isinstance(item, _Item):
            continue
        id_ = item.id
        if id_ is not None and len(ids) < MOST_ITEMS and is_minted(id_):
            ids.append(str(id_))
        if len(files) < MOST_OBJECTS and isinstance(item.content, list):
            files.extend(_files(item.content))
        content = item.encrypted_content
        if content is not NULL and not encrypted:
            encrypted = bytes(content) not in (b"null", b'""')
    return ids, files, encrypted


def _files(parts: list[_Part | str | None]) -> list[str]:
    named = (part.file_id for part in parts if isinstance(part, _Part))
    return [str(id_) for id_ in named if is_minted(id_)]


def _objects(parsed: _Body, files: Sequence[str]) -> list[str]:
    """Files, vector stores and containers: each belongs to one account."""
    if not files and _names_no_object(parsed):
        return []
    named: list[object] = [*files, parsed.file_id, parsed.input_file_id]
    named.extend(_listed(parsed.file_ids))
    for tool in parsed.tools or ():
        named.extend(_listed(tool.vector_store_ids))
        container = tool.container
        if isinstance(container, _Container):
            named.extend(_listed(container.file_ids))
        else:
            named.append(container)
    return [str(id_) for id_ in named if is_minted(id_)][:MOST_OBJECTS]


def _names_no_object(parsed: _Body) -> bool:
    ids = parsed.file_id or parsed.input_file_id or parsed.file_ids
    return ids is None and parsed.tools is None


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _bound(
    previous: str | None,
    path: bytes,
    conversation: str | _Conversation | None,
    items: Sequence[str],
) -> tuple[str, ...]:
    found = [previous] if previous else []
    found.extend(ids_in_path(path))
    if isinstance(conversation, _Conversation):
        conversation = _text(conversation.id)
    if conversation:
        found.append(conversation)
    found.extend(items)
    return tuple(found)


def ids_in_path(path: bytes) -> list[str]:
    """`/responses/resp_1/input_items` names resp_1."""
    if path.find(b"/", 1) < 0:
        return []
    segments = path.decode("latin-1").split("/", MOST_SEGMENTS)[:MOST_SEGMENTS]
    return [segment for segment in segments if is_minted(segment)]


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
