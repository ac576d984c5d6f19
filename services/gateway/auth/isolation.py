"""Checks which ids a request names, so that proxy keys reach only objects of their
tenant (the key's team, or the key itself). The owner of each id is compared in Redis:
`foreign_id` in services/router/functions/affinity.lua. docs/isolation.md has the
rules. Pure."""

import json
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from libs.common.bodies.hints import LARGEST_QUICK, MULTIPART, TOO_MANY_IDS, Hints
from libs.common.bodies.named_ids import MOST_CHECKED
from libs.common.bodies.shapes import ODD_JSON, FrameIds
from libs.common.routing.types import NAMED, REFERENCE, Asker, digest
from services.gateway import errors
from services.gateway.auth.endpoints import PLAIN_ROUTES, Route
from services.gateway.content.multipart import fault_of
from services.gateway.errors import Problem
from services.gateway.server.request import Request

LARGEST_FRAME = 1_048_576  # bytes of a WebSocket message that creates no response
# The client messages that are passed on. All but response.create name ids only where
# `ids_beside` looks.
FRAMES = frozenset(
    {"response.create", "response.steer", "response.processed", "response.interrupt",
     "response.cancel"}
)  # fmt: skip
# JSON parsers differ in which of two members of one name they keep. These bytes rarely
# occur twice by chance, because quotes within strings are escaped.
_PREVIOUS: Final = b'"previous_response_id"'
_CONVERSATION: Final = b'"conversation"'
_RESPONSES: Final = PLAIN_ROUTES["POST", b"/responses"]
# A letter of these names, or their underscore, as an escape.
_escaped_letter: Final = re.compile(rb"\\u00[567]").search


# The asker of a request --------------------------------------------------------


MOST_SHARED: Final = 1024
_strict: Final[dict[str, Asker]] = {}
_lenient: Final[dict[str, Asker]] = {}


def shared_asker(tenant: str, strict: bool) -> Asker:
    """The asker of requests that name no ids."""
    shared = _strict if strict else _lenient
    asker = shared.get(tenant)
    if asker is None:
        if len(shared) >= MOST_SHARED:
            shared.clear()
        asker = shared[tenant] = Asker(tenant, strict)
    return asker


def plain_asker(
    tenant: str, hints: Hints, request: Request, path: bytes
) -> Asker | None:
    """The asker of the common request that needs no further check: JSON that names no
    id, to an endpoint without parameters. None: use `route_of`, `check_body` and
    `asker_of`. Creates no objects, because it runs for each request."""
    if hints.problem is not None or hints.named or hints.references:
        return None
    # Most requests are of this route: sooner than to hash its path.
    usual = path == b"/responses" and request.method == "POST"
    route = _RESPONSES if usual else PLAIN_ROUTES.get((request.method, path))
    body = request.body
    if (
        route is None
        or route.rule.no_files
        or request.repeats
        or hints.bound_ids
        or request.coding is not None
        or len(body) > LARGEST_QUICK
        or (hints.continues and _repeats_names(body))
    ):
        return None
    return shared_asker(tenant, True)


def asker_of(
    tenant: str, hints: Hints, route: Route | None, *, strict: bool
) -> tuple[Asker, tuple[str, ...]]:
    """The asker of an HTTP request, and the ids to check: `hints.bound_ids`, then the
    others, in the order of `Asker.kinds`."""
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
    """The same from given ids: `named` must belong to the tenant; `references`, and
    those of `hints`, must not belong to another tenant."""
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


def ids_beside(plain: bytes, *, strict: bool) -> list[str]:
    """The ids in a WebSocket message that creates no response; `Hints` lack them.
    `strict`: raises a `Problem` for a message with a value that only some parsers read,
    such as half of a surrogate pair: they would read its other ids."""
    try:
        frame = msgspec.json.decode(plain, type=FrameIds)
    except ODD_JSON:
        if strict:
            raise errors.unreadable_body() from None
        return []
    found = (frame.response_id, frame.item_id, frame.id)
    return [id_ for id_ in found if isinstance(id_, str) and id_]


# Bodies that could hide ids ----------------------------------------------------


def check_body(route: Route, hints: Hints, request: Request, plain: bytes) -> None:
    """Refuses a body that could name ids which the gateway did not read. `plain` is
    the body, decompressed. Raises a `Problem`."""
    if request.repeats:
        raise errors.bad_body(
            "has two Content-Type or Content-Encoding headers; send one"
        )
    if hints.problem == MULTIPART:
        _check_form(route, request, plain)
        return
    if hints.problem is not None:
        _check_json(hints)
    if request.body and not plain:
        raise errors.unreadable_body()
    if route.rule.no_files and (b"file_id" in plain or b"\\u" in plain):
        raise errors.bad_body("names a file; send the image itself")
    _check_names(plain)


def check_frame(hints: Hints, kind: object, plain: bytes) -> None:
    """The same for a WebSocket message of the type `kind`."""
    if kind not in FRAMES:
        known = ", ".join(sorted(FRAMES))
        raise errors.bad_body(f"has none of the types {known}; send one of these")
    if kind != "response.create" and len(plain) > LARGEST_FRAME:
        raise errors.bad_body(f"exceeds {LARGEST_FRAME} bytes; send less at once")
    _check_json(hints)
    _check_names(plain)


def _check_form(route: Route, request: Request, plain: bytes) -> None:
    if not route.rule.multipart:
        raise errors.bad_body("is a form; send JSON")
    if any(name == b"content-encoding" for name, _ in request.headers):
        raise errors.bad_body("is a compressed form; send it uncompressed")
    fault = fault_of(request.headers, plain)
    if fault is not None:
        raise errors.bad_body(fault)


def _check_json(hints: Hints) -> None:
    if hints.problem == TOO_MANY_IDS:
        raise errors.too_many_ids(MOST_CHECKED)
    if hints.problem is not None:
        raise errors.unreadable_body()


def _check_names(plain: bytes) -> None:
    if len(plain) > LARGEST_QUICK:
        return  # refused already when it was read
    if not _repeats_names(plain):
        return
    try:
        json.loads(plain, object_pairs_hook=_without_repeats)
    except ODD_JSON:
        raise errors.unreadable_body() from None


def _repeats_names(plain: bytes) -> bool:
    """May a body have two members of one name that matters?"""
    return (
        plain.count(_PREVIOUS) > 1
        or plain.count(_CONVERSATION) > 1
        or _escaped_letter(plain) is not None
    )


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("repeated member name")
    return members


# Ids of other tenants ----------------------------------------------------------

_COLLECTIONS = {
    "resp": "responses", "conv": "conversations", "file": "files", "cfile": "files",
    "vs": "vector_stores", "cntr": "containers", "upload": "uploads",
    "batch": "batches",
}  # fmt: skip
_OBJECT_NAMES = {
    "responses": "Response", "conversations": "Conversation", "uploads": "Upload",
    "vector_stores": "Vector store", "containers": "Container", "batches": "Batch",
}  # fmt: skip


def not_found(id_: str, hints: Hints, route: Route | None) -> Problem:
    """The error for an id that is not the tenant's, in the words the upstream uses for
    an id that does not exist (docs/upstream-api.md)."""
    if id_ == hints.previous_response_id:
        return errors.unknown_response(id_)
    if route is not None and id_ == route.object_id:
        return _unknown_object(id_, route.rule.template.split("/")[1])
    prefix = re.split("[_-]", id_, maxsplit=1)[0]
    if prefix in _COLLECTIONS:
        return _unknown_object(id_, _COLLECTIONS[prefix])
    return errors.unknown_item(id_)


def _unknown_object(id_: str, collection: str) -> Problem:
    if collection == "files":
        return errors.unknown_file(id_)
    return errors.unknown_object(_OBJECT_NAMES.get(collection, "Object"), id_)
