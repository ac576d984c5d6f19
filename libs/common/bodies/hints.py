"""What routing and isolation need to know of a request, read from its bytes. Pure.

Nothing is built that is not used. A body that is no JSON, or of another shape, gives
no hints and is forwarded all the same; isolation is told that it cannot be read.

A small body of the usual shape is read by one call of msgspec. All others take steps
(`scanning.py`): no body may hold up the event loop."""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from libs.common.bodies.minted_ids import LONGEST_ID, ids_in_path
from libs.common.bodies.named_ids import (
    MOST_CHECKED,
    ItemFacts,
    all_objects,
    are_plain,
    may_name_objects,
    objects,
)
from libs.common.bodies.scanner import Scan
from libs.common.bodies.shapes import ODD_JSON, Body, Metadata, Named, WholeBody
from libs.common.headers import Header

LARGEST_QUICK = 49_152  # bytes that are read by one call; the worst take some 3 ms
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
_NO_METADATA = Metadata()
_NO_FACTS = ItemFacts()

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


def read_hints(
    path: bytes, headers: Iterable[Header], body: bytes, isolate: bool = False
) -> Hints:
    """Hints of a request to `path` (raw, below /v1) with an opened `body`. With
    `isolate` also every upstream id that it names. For the event loop there are
    `quick_hints` and `Reading`."""
    found = quick_hints(path, headers, body, isolate)
    if found is not None:
        return found
    reading = Reading(path, headers, body, isolate)
    for _ in reading.steps():
        pass
    return reading.hints


def quick_hints(
    path: bytes, headers: Iterable[Header], body: bytes, isolate: bool = False
) -> Hints | None:
    """The same, or None when reading it takes steps."""
    if len(body) > LARGEST_QUICK:
        return None
    parsed: Body
    try:
        if not isolate:
            parsed = _decoder.decode(body) if body else Body()
        else:
            parsed = _whole_decoder.decode(body) if body else WholeBody()
            if not body.isascii():
                body.decode()
    except ODD_JSON:
        return None
    return _hints(path, headers, parsed, _facts(parsed), None)


def unopened_hints(path: bytes, headers: Iterable[Header], isolate: bool) -> Hints:
    """Those of a body that could not be opened."""
    parsed = WholeBody() if isolate else Body()
    problem = UNREADABLE if isolate else None
    return _hints(path, headers, parsed, _NO_FACTS, problem)


class Reading:
    """Reads hints in steps; `hints` has them in the end."""

    def __init__(
        self, path: bytes, headers: Iterable[Header], body: bytes, isolate: bool = False
    ) -> None:
        self._path = path
        self._headers = headers
        self._isolate = isolate
        self.scan = Scan(body, WholeBody if isolate else Body, utf8=isolate)

    def steps(self) -> Iterator[None]:
        return self.scan.steps()

    @property
    def hints(self) -> Hints:
        scan = self.scan
        problem = None
        if self._isolate:
            problem = self._problem()
        parsed = scan.parsed
        if parsed is None:
            parsed = WholeBody() if self._isolate else Body()
        hints = _hints(self._path, self._headers, parsed, scan.facts, problem)
        ids = (*hints.bound_ids, *hints.named, *hints.references)
        return hints if all(map(str.isascii, ids)) else _encodable(hints)

    def _problem(self) -> str | None:
        scan = self.scan
        if scan.parsed is None or not (scan.complete and scan.is_utf8):
            return MULTIPART if _is_multipart(self._headers) else UNREADABLE
        return TOO_MANY_IDS if scan.overflow else None


def _encodable(hints: Hints) -> Hints:
    """`hints` with ids that can be encoded as UTF-8: JSON may escape half of a
    surrogate pair, which neither Redis nor SQL can be asked for."""
    return msgspec.structs.replace(
        hints,
        bound_ids=_once([_text(id_) or "" for id_ in hints.bound_ids]),
        named=_once([_text(id_) or "" for id_ in hints.named]),
        references=_once([_text(id_) or "" for id_ in hints.references]),
    )


def _is_multipart(headers: Iterable[Header]) -> bool:
    kinds = [value.lower() for name, value in headers if name == b"content-type"]
    return bool(kinds) and all(kind.startswith(b"multipart/") for kind in kinds)


def _facts(parsed: Body) -> ItemFacts:
    facts = _NO_FACTS
    if isinstance(parsed.input, list) and not are_plain(parsed.input):
        facts = ItemFacts()
        facts.take(parsed.input)
    if isinstance(parsed, WholeBody) and isinstance(parsed.items, list):
        more = ItemFacts()
        more.take(parsed.items)
        return facts.joined(more)
    return facts


def _hints(
    path: bytes,
    headers: Iterable[Header],
    parsed: Body,
    facts: ItemFacts,
    problem: str | None,
) -> Hints:
    told = {name: value for name, value in headers if name in _INTERESTING}
    metadata = parsed.metadata or _NO_METADATA
    client = parsed.client_metadata or _NO_METADATA
    previous = parsed.previous_response_id and _text(parsed.previous_response_id)
    first: Sequence[str] = ()
    if previous or parsed.conversation or path.find(b"/", 1) > 0:
        first = _first_ids(previous, path, parsed.conversation)
    bound: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    # Most requests name nothing.
    if first or facts is not _NO_FACTS or may_name_objects(parsed):
        bound = (*first, *facts.ids, *objects(parsed, facts.files))
        if isinstance(parsed, WholeBody):
            named = _once((*first, *all_objects(parsed), *facts.named))
            references = _once((*facts.ids, *facts.references))
            if facts.overflow or len(named) + len(references) > MOST_CHECKED:
                problem = problem or TOO_MANY_IDS
    # In the order of the fields: names would double what this costs.
    return Hints(
        _text(parsed.model),
        parsed.stream is True,
        (_first(told, _SESSION_HEADERS) if told else None)
        or _text(metadata.session_id or client.session_id or parsed.prompt_cache_key),
        (_first(told, _NAME_HEADERS) if told else None) or _text(metadata.session_name),
        (_first(told, _POOL_HEADERS) if told else None) or _text(metadata.pool_id),
        previous or None,
        bound,
        facts.encrypted,
        parsed.background is True,
        named,
        references,
        problem,
    )


def _once(ids: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(ids)) if ids else ()


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


def _text(value: object) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    if len(value) <= LONGEST_ID and value.isascii():
        return value
    return value[:LONGEST_ID].encode("utf-8", "replace").decode()


def _first(named: dict[bytes, bytes], wanted: Sequence[bytes]) -> str | None:
    for name in wanted:
        value = named.get(name)
        if value:
            return value.decode("utf-8", "replace")[:LONGEST_ID]
    return None
