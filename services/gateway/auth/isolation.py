"""Which endpoints a proxy key may use when keys are required, and which of a request's
ids have to be its tenant's. Pure.

Upstream objects belong to the upstream account that many proxy keys share. So a key may
use an endpoint only if every id it takes can be checked, and if its answers show
nothing of others. What is not in the table is refused: a new endpoint of the upstream
stays closed until somebody has looked at its ids."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from libs.common.bodies.hints import LARGEST_QUICK, MULTIPART, TOO_MANY_IDS, Hints
from libs.common.bodies.named_ids import MOST_CHECKED
from libs.common.bodies.shapes import ODD_JSON
from libs.common.routing.types import NAMED, REFERENCE, Asker, digest
from services.gateway.content.multipart import fault_of
from services.gateway.errors import Problem
from services.gateway.server.request import Request

# Method, path below /v1, and what else is special. {id} names an object: it must be
# the tenant's. {child} names a part of that object: it must not be another tenant's.
# multipart: the body may be a form. no files: the body is JSON that may hold
# file ids where routing does not read them.
_TABLE = """
GET /models
GET /models/{name}
POST /embeddings
POST /moderations
POST /completions
POST /chat/completions
POST /images/generations
POST /images/edits multipart,no-files
POST /images/variations multipart
POST /audio/speech
POST /audio/transcriptions multipart
POST /audio/translations multipart
POST /responses
POST /responses/input_tokens
POST /responses/compact
GET /responses/{id}
POST /responses/{id}
PATCH /responses/{id}
DELETE /responses/{id}
POST /responses/{id}/cancel
GET /responses/{id}/input_items
POST /conversations
GET /conversations/{id}
POST /conversations/{id}
PATCH /conversations/{id}
DELETE /conversations/{id}
GET /conversations/{id}/items
POST /conversations/{id}/items
GET /conversations/{id}/items/{child}
DELETE /conversations/{id}/items/{child}
POST /files multipart
GET /files/{id}
DELETE /files/{id}
GET /files/{id}/content
POST /uploads
POST /uploads/{id}/parts multipart
POST /uploads/{id}/complete
POST /uploads/{id}/cancel
POST /vector_stores
GET /vector_stores/{id}
POST /vector_stores/{id}
DELETE /vector_stores/{id}
POST /vector_stores/{id}/search
GET /vector_stores/{id}/files
POST /vector_stores/{id}/files
GET /vector_stores/{id}/files/{child}
POST /vector_stores/{id}/files/{child}
DELETE /vector_stores/{id}/files/{child}
GET /vector_stores/{id}/files/{child}/content
POST /vector_stores/{id}/file_batches
GET /vector_stores/{id}/file_batches/{child}
POST /vector_stores/{id}/file_batches/{child}/cancel
GET /vector_stores/{id}/file_batches/{child}/files
POST /containers
GET /containers/{id}
DELETE /containers/{id}
GET /containers/{id}/files
POST /containers/{id}/files multipart
GET /containers/{id}/files/{child}
DELETE /containers/{id}/files/{child}
GET /containers/{id}/files/{child}/content
"""
# Their answers would show what other keys made.
LISTS = frozenset(
    {b"/files", b"/vector_stores", b"/batches", b"/containers", b"/conversations",
     b"/chat/completions", b"/responses", b"/assistants", b"/evals",
     b"/fine_tuning/jobs", b"/videos"}
)  # fmt: skip
_PARTS = {"{id}": rb"([A-Za-z0-9_-]+)", "{child}": rb"([A-Za-z0-9_-]+)",
          "{name}": rb"[A-Za-z0-9_.:%@-]+"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """An endpoint that can be isolated."""

    method: str
    template: str
    pattern: re.Pattern[bytes]
    multipart: bool
    no_files: bool

    @property
    def names_object(self) -> bool:
        return "{id}" in self.template


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes, with the ids in its path."""

    rule: Rule
    object_id: str | None = None
    child_id: str | None = None


def _rules() -> Iterator[Rule]:
    for line in _TABLE.split("\n"):
        if not line:
            continue
        method, template, *special = line.split(" ")
        parts = [
            _PARTS.get(part, re.escape(part.encode())) for part in template.split("/")
        ]
        pattern = re.compile(b"/".join(parts))
        options = special[0].split(",") if special else []
        yield Rule(
            method, template, pattern, "multipart" in options, "no-files" in options
        )


RULES = tuple(_rules())
_PLAIN = {
    (r.method, r.template.encode()): Route(r) for r in RULES if "{" not in r.template
}
_BY_START: dict[tuple[str, bytes, int], list[Rule]] = {}
for _rule in RULES:
    if "{" in _rule.template:
        _start = _rule.template.split("/")[1].encode()
        _key = _rule.method, _start, _rule.template.count("/")
        _BY_START.setdefault(_key, []).append(_rule)


def route_of(method: str, path: bytes) -> Route:
    """The route of a request. Raises a `Problem` when it cannot be isolated."""
    if method == "HEAD":
        method = "GET"
    plain = _PLAIN.get((method, path))
    if plain is not None:
        return plain
    start = path[1 : path.find(b"/", 1)]
    for rule in _BY_START.get((method, start, path.count(b"/")), ()):
        found = rule.pattern.fullmatch(path)
        if found is not None:
            ids = [id_.decode() for id_ in found.groups()]
            if not rule.names_object:
                return Route(rule)
            return Route(rule, ids[0], ids[1] if len(ids) > 1 else None)
    if method == "GET" and path.rstrip(b"/") in LISTS:
        raise list_not_isolated(path)
    raise endpoint_not_isolated(method, path)


def plain_asker(
    tenant: str, hints: Hints, request: Request, path: bytes
) -> Asker | None:
    """Who asks, of the usual request where nothing else has to be looked at: JSON that
    names no id, to an endpoint that takes it. None: `route_of`, `check_body` and
    `asker_of` decide. Makes no objects, and calls little."""
    if hints.problem is not None or hints.named or hints.references:
        return None
    route = _PLAIN.get((request.method, path))
    body = request.body
    if (
        route is None
        or route.rule.no_files
        or request.repeats
        or hints.bound_ids
        or request.coding is not None
        or len(body) > LARGEST_QUICK
        or body.count(_PREVIOUS) > 1
        or body.count(_CONVERSATION) > 1
    ):
        return None
    return shared_asker(tenant, True)


def check_body(route: Route, hints: Hints, request: Request, plain: bytes) -> None:
    """May this body be trusted to name no other ids than those that were read?
    `plain`: the body, opened. Raises a `Problem`."""
    if request.repeats:
        raise bad_body("has two Content-Type or Content-Encoding headers; send one")
    if hints.problem == MULTIPART:
        _check_form(route, request, plain)
        return
    if hints.problem is not None:
        _check_json(hints)
    if request.body and not plain:
        raise unreadable()
    if route.rule.no_files and (b"file_id" in plain or b"\\u" in plain):
        raise bad_body("names a file; send the image itself")
    _check_names(plain)


def check_frame(hints: Hints, kind: object, plain: bytes) -> None:
    """The same of a socket's frame."""
    if kind not in FRAMES:
        raise bad_body(f"has none of the types {', '.join(sorted(FRAMES))}; send these")
    if kind != "response.create" and len(plain) > LARGEST_FRAME:
        raise bad_body(f"has more than {LARGEST_FRAME} bytes; send less at once")
    _check_json(hints)
    _check_names(plain)


LARGEST_FRAME = 1_048_576  # of those that ask for no response
# Whatever else clients say on sockets: none of these names ids in another place.
FRAMES = frozenset(
    {"response.create", "response.steer", "response.processed", "response.interrupt",
     "response.cancel"}
)  # fmt: skip


class _Beside(msgspec.Struct):
    response_id: object = None
    item_id: object = None
    id: object = None


def ids_beside(plain: bytes) -> list[str]:
    """Ids of a frame that asks for no response, which routing does not read."""
    try:
        beside = msgspec.json.decode(plain, type=_Beside)
    except ODD_JSON:
        return []
    found = (beside.response_id, beside.item_id, beside.id)
    return [id_ for id_ in found if isinstance(id_, str) and id_]


def _check_form(route: Route, request: Request, plain: bytes) -> None:
    if not route.rule.multipart:
        raise bad_body("is a form; send JSON")
    if any(name == b"content-encoding" for name, _ in request.headers):
        raise bad_body("is a compressed form; send it plain")
    fault = fault_of(request.headers, plain)
    if fault is not None:
        raise bad_body(fault)


def _check_json(hints: Hints) -> None:
    if hints.problem == TOO_MANY_IDS:
        raise too_many_ids()
    if hints.problem is not None:
        raise unreadable()


# Parsers differ in which of two equal names counts. These are seldom there twice by
# chance: in strings their quotes are escaped.
_PREVIOUS, _CONVERSATION = b'"previous_response_id"', b'"conversation"'


def _check_names(plain: bytes) -> None:
    if len(plain) > LARGEST_QUICK:
        return  # `Reader` has looked at it in steps
    if plain.count(_PREVIOUS) < 2 and plain.count(_CONVERSATION) < 2:
        return
    try:
        json.loads(plain, object_pairs_hook=_without_repeats)
    except ODD_JSON:
        raise unreadable() from None


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name is there twice")
    return fields


def asker_of(
    tenant: str, hints: Hints, route: Route | None, *, strict: bool
) -> tuple[Asker, tuple[str, ...]]:
    """Who asks, with the ids that have to be checked: those that `hints` binds the
    request by, then further ones."""
    named: Iterable[str] = hints.named
    object_id = None if route is None else route.object_id
    if not (named or hints.references or hints.bound_ids or object_id):
        return shared_asker(tenant, strict), ()
    if route is None:
        return asker_for(tenant, hints, named, strict=strict)
    child = route.child_id
    if route.object_id:
        named = [id_ for id_ in (route.object_id, *named) if id_ != child]
    children = (child,) if child and child != route.object_id else ()
    return asker_for(tenant, hints, named, children, strict=strict)


def asker_for(
    tenant: str,
    hints: Hints,
    named: Iterable[str],
    references: Iterable[str] = (),
    *,
    strict: bool,
) -> tuple[Asker, tuple[str, ...]]:
    """The same, given the ids that clients do not invent, and further ones that they
    may have beside those of `hints`."""
    wanted = dict.fromkeys(named)
    bound = hints.bound_ids
    if not bound and not wanted and not hints.references and not references:
        return shared_asker(tenant, strict), ()
    seen = set(bound)
    listed = dict.fromkeys((*wanted, *references, *hints.references))
    further = [id_ for id_ in listed if id_ not in seen][:MOST_CHECKED]
    ids = (*bound, *further)
    kinds = "".join([NAMED if id_ in wanted else REFERENCE for id_ in ids])
    return Asker(tenant, strict, kinds, tuple([digest(id_) for id_ in further])), ids


@lru_cache(maxsize=1024)
def shared_asker(tenant: str, strict: bool) -> Asker:
    """That of requests without ids."""
    return Asker(tenant, strict)


# Refusals --------------------------------------------------------------------


def not_found(id_: str, hints: Hints, route: Route | None) -> Problem:
    """As the upstream says it of an id that does not exist (responses-api.md
    section 8)."""
    if id_ == hints.previous_response_id:
        return _unknown(
            400,
            f"Previous response with id '{id_}' not found.",
            "previous_response_id",
            "previous_response_not_found",
        )
    if route is not None and id_ == route.object_id:
        return _unknown_object(id_, route.rule.template.split("/")[1])
    start = re.split("[_-]", id_, maxsplit=1)[0]
    if start in _KIND_OF:
        return _unknown_object(id_, _KIND_OF[start])
    return _unknown(
        404,
        f"Item with id '{id_}' not found. Items are not persisted when `store` is set "
        "to false. Try again with `store` set to true, or remove this item from your "
        "input.",
        "input",
    )


_KIND_OF = {
    "resp": "responses", "conv": "conversations", "file": "files", "cfile": "files",
    "vs": "vector_stores", "cntr": "containers", "upload": "uploads",
    "batch": "batches",
}  # fmt: skip
_NAMES = {
    "responses": "Response", "conversations": "Conversation", "uploads": "Upload",
    "vector_stores": "Vector store", "containers": "Container", "batches": "Batch",
}  # fmt: skip


def _unknown_object(id_: str, collection: str) -> Problem:
    if collection == "files":
        return _unknown(404, f"No such File object: {id_}", "id")
    name = _NAMES.get(collection, "Object")
    return _unknown(404, f"{name} with id '{id_}' not found.")


def _unknown(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> Problem:
    return Problem(status, code, message, param=param)


_ALLOW = (
    "The operator may set PROXY_FOREIGN_IDS=allow, if all keys may see each other's "
    "objects."
)


def endpoint_not_isolated(method: str, path: bytes) -> Problem:
    return Problem(
        403,
        "endpoint_not_isolated",
        f"Proxy keys may not use {method[:20]} /v1{path.decode('latin-1')[:200]}: the "
        "objects it works on belong to the upstream account that all keys share, and "
        f"it cannot be told whose they are. {_ALLOW}",
    )


def list_not_isolated(path: bytes) -> Problem:
    return Problem(
        403,
        "list_not_isolated",
        f"Proxy keys may not list /v1{path.decode('latin-1')[:200]}: it would show "
        "what other keys made. Keep the ids that your requests were answered with, and "
        f"ask for these. {_ALLOW}",
    )


def bad_body(what: str) -> Problem:
    return Problem(
        400,
        "invalid_json",
        f"The request body {what}. Otherwise it cannot be told whose ids it names.",
    )


def unreadable() -> Problem:
    return bad_body(
        "cannot be read as one JSON object in UTF-8, without repeated names, plain or "
        "as gzip or zstd; send it so"
    )


def too_many_ids() -> Problem:
    return Problem(
        400,
        "too_many_ids",
        f"The request names more than {MOST_CHECKED} ids. Send items with their "
        "content, or continue from previous_response_id.",
    )
