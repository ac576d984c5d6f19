"""Reads from a request what routing and isolation need. Pure.

Only members that are used are decoded. A body that is not a JSON object gives no hints
and is forwarded unchanged; `problem` tells isolation that it was not understood.

A small body of the usual shape is read by one call of msgspec. Others are read in steps
(`scanner.py`), so that no body blocks the event loop."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
from msgspec.structs import astuple

from libs.common.bodies.hint_types import Hints
from libs.common.bodies.minted_ids import LONGEST_ID, ids_in_path
from libs.common.bodies.named_ids import (
    MOST_CHECKED,
    ItemFacts,
    are_plain,
    may_name_objects,
    objects,
    other_objects,
    owned,
)
from libs.common.bodies.scanner import Scan
from libs.common.bodies.shapes import (
    ABSENT,
    INPUT,
    ITEMS,
    LIMIT,
    LIMITED,
    ODD_JSON,
    Body,
    Metadata,
    Named,
    WholeBody,
)
from libs.common.headers import Header

__all__ = [
    "LARGEST_QUICK",
    "MULTIPART",
    "TOO_MANY_IDS",
    "UNREADABLE",
    "Hints",
    "Reading",
    "quick_hints",
    "read_hints",
    "unopened_hints",
]

LARGEST_QUICK: Final = 49_152  # bytes read by one call; takes 3 ms in the worst case
# Reasons why isolation cannot check a body.
UNREADABLE = "unreadable"
TOO_MANY_IDS: Final = "too_many_ids"
MULTIPART = "multipart"

_SESSION_HEADERS: Final = (
    b"x-proxy-session-id",
    b"x-session-id",
    b"session-id",
    b"session_id",
)
_POOL_HEADERS: Final = (b"x-proxy-pool-id", b"x-pool-id")
_NAME_HEADERS: Final = (b"x-proxy-session-name", b"x-session-name")
NAMING_HEADERS: Final = frozenset(_SESSION_HEADERS + _POOL_HEADERS + _NAME_HEADERS)
_SLASH: Final = ord("/")
_NO_HEADERS: Final[dict[bytes, bytes]] = {}  # never changed
_NO_METADATA: Final = Metadata()
_NO_FACTS: Final = ItemFacts()
_NO_IDS: Final[tuple[str, ...]] = ()

_decode: Final[Callable[[bytes], Body]] = msgspec.json.Decoder(Body).decode
_decode_whole: Final[Callable[[bytes], WholeBody]] = msgspec.json.Decoder(
    WholeBody
).decode
# Compiled, an imported name is a look-up, and so is each member of a struct.
_WholeBody: Final = WholeBody
_members_of: Final[Callable[[Any], tuple[Any, ...]]] = astuple


def read_hints(
    path: bytes, headers: Iterable[Header], body: bytes, isolate: bool = False
) -> Hints:
    """Read the hints of a request. `path` is raw, below /v1; `body` is decompressed;
    `isolate` also collects every upstream id. May block: event loops use `quick_hints`
    and `Reading` instead."""
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
    """Read the hints of a small body; return None if it must be read in steps."""
    if len(body) > LARGEST_QUICK:
        return None
    parsed: Body
    try:
        if not isolate:
            parsed = _decode(body) if body else Body()
        else:
            parsed = _decode_whole(body) if body else _WholeBody()
            if not body.isascii():
                body.decode()
    except ODD_JSON:
        return None
    members = _members_of(parsed)
    return _hints(path, headers, members, _facts(members), None)


def unopened_hints(path: bytes, headers: Iterable[Header], isolate: bool) -> Hints:
    """Return the hints of a request whose body could not be decompressed."""
    members = _members_of(WholeBody() if isolate else Body())
    problem = UNREADABLE if isolate else None
    return _hints(path, headers, members, _NO_FACTS, problem)


class Reading:
    """Reads hints in steps; `hints` is available after the last step."""

    def __init__(
        self, path: bytes, headers: Iterable[Header], body: bytes, isolate: bool = False
    ) -> None:
        self._path = path
        self._headers = headers
        self._isolate = isolate
        self.scan = Scan(body, WholeBody if isolate else Body, isolate=isolate)

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
        members = _members_of(parsed)
        hints = _hints(self._path, self._headers, members, scan.facts, problem)
        hints.continues = True  # a member of an odd type is not in `parsed`
        ids = (*hints.bound_ids, *hints.named, *hints.references)
        return hints if all(map(str.isascii, ids)) else _encodable(hints)

    def _problem(self) -> str | None:
        scan = self.scan
        if scan.parsed is None or not (scan.complete and scan.is_utf8):
            return MULTIPART if _is_multipart(self._headers) else UNREADABLE
        return TOO_MANY_IDS if scan.overflow else None


def _encodable(hints: Hints) -> Hints:
    """Replace ids that cannot be encoded as UTF-8: JSON may escape half a surrogate
    pair, which neither Redis nor SQL accepts."""
    return replace(
        hints,
        bound_ids=_once([_text(id_) or "" for id_ in hints.bound_ids]),
        named=_once([_text(id_) or "" for id_ in hints.named]),
        references=_once([_text(id_) or "" for id_ in hints.references]),
    )


def _is_multipart(headers: Iterable[Header]) -> bool:
    kinds = [value.lower() for name, value in headers if name == b"content-type"]
    return bool(kinds) and all(kind.startswith(b"multipart/") for kind in kinds)


def _facts(members: tuple[Any, ...]) -> ItemFacts:
    facts, given = _NO_FACTS, members[INPUT]
    if isinstance(given, list) and not are_plain(given):
        facts = ItemFacts()
        facts.take(given)
    if len(members) > ITEMS and isinstance(members[ITEMS], list):
        more = ItemFacts()
        more.take(members[ITEMS])
        return facts.joined(more)
    return facts


def _hints(
    path: bytes,
    headers: Iterable[Header],
    members: tuple[Any, ...],
    facts: ItemFacts,
    problem: str | None,
) -> Hints:
    """`members`: all those of a `Body`, in the order of its class."""
    sessions, others = _named_in(headers)
    (
        model, stream, background, _, named_previous, conversation, cache_key,
        its_metadata, its_client,
    ) = members[:9]  # fmt: skip
    session_id, session_name, pool_id = _members_of(its_metadata or _NO_METADATA)
    if not session_id and its_client is not None:
        session_id = its_client.session_id
    previous = _text(named_previous)
    first: Sequence[str] = ()
    if previous or conversation or _SLASH in path[1:]:
        first = _first_ids(previous, path, conversation or None)
    bound = named = references = _NO_IDS  # as in most requests
    if first or facts is not _NO_FACTS or may_name_objects(members):
        of_body = objects(members)
        ours = owned(facts.files, of_body) if of_body or facts.files else _NO_IDS
        bound = (*first, *facts.ids, *ours)
        if len(members) > ITEMS:
            of_body = (*of_body, *other_objects(members))
            named, references = _all_ids(of_body, facts, first)
            if facts.overflow or len(named) + len(references) > MOST_CHECKED:
                problem = problem or TOO_MANY_IDS
    effort, tier, limit = _limited(members)
    return Hints(  # keywords would double the cost
        _text(model),
        stream is True,
        (_first(sessions, _SESSION_HEADERS) if sessions else None)
        or _text(session_id or cache_key),
        (_first(others, _NAME_HEADERS) if others else None) or _text(session_name),
        (_first(others, _POOL_HEADERS) if others else None) or _text(pool_id),
        previous,
        bound,
        facts.encrypted,
        background is True,
        named,
        references,
        problem,
        limit,
        effort,
        tier,
        named_previous is not ABSENT or conversation is not ABSENT,
    )


def _named_in(
    headers: Iterable[Header],
) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    """The headers that name a session, and those that name it or a pool otherwise."""
    sessions = others = _NO_HEADERS
    for name, value in headers:
        if name in NAMING_HEADERS:
            if name in _SESSION_HEADERS:
                sessions = sessions or {}
                sessions[name] = value
            else:
                others = others or {}
                others[name] = value
    return sessions, others


def _limited(members: tuple[Any, ...]) -> tuple[str | None, str | None, int | None]:
    """What policies limit: effort, service tier, and tokens of the answer. Each
    endpoint has its own member; the largest of them counts."""
    limit = members[LIMIT]
    if len(members) <= ITEMS:
        return None, None, limit
    reasoning, effort, chat_limit, newer_limit, tier = members[LIMITED:ITEMS]
    if reasoning is not None:
        effort = reasoning.effort or effort
    if chat_limit is not None and (limit is None or chat_limit > limit):
        limit = chat_limit
    if newer_limit is not None and (limit is None or newer_limit > limit):
        limit = newer_limit
    return effort, tier, limit


def _all_ids(
    objects_: Sequence[str], facts: ItemFacts, first: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The ids that clients do not invent, and those that they may."""
    named = _once((*first, *objects_, *facts.named))
    return named, _once((*facts.ids, *facts.references))


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
