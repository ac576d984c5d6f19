"""The endpoints that proxy keys may use when keys are required. Pure.

Many proxy keys share one upstream account, and with it its objects. So a key may use an
endpoint only if every id that it takes can be checked, and if its answers show no
objects of other keys. An endpoint that is not in the table is refused: new upstream
endpoints stay closed until somebody has looked at their ids."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from services.gateway import errors

# Method, path below /v1, and options. {id} is an object that must belong to the tenant;
# {child} is a part of that object that must not belong to another tenant.
# multipart: the body may be a form. no-files: the body is JSON that could hold file
# ids in places that routing does not read.
_TABLE = """
GET /models
GET /models/{name}
GET /models/{name}/{name}
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
# Their answers would show objects of other keys.
LISTS = frozenset(
    {b"/files", b"/vector_stores", b"/batches", b"/containers", b"/conversations",
     b"/chat/completions", b"/responses", b"/assistants", b"/evals",
     b"/fine_tuning/jobs", b"/videos"}
)  # fmt: skip
_PARTS = {"{id}": rb"([A-Za-z0-9_-]+)", "{child}": rb"([A-Za-z0-9_-]+)",
          "{name}": rb"[A-Za-z0-9_.:%@-]+"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """An endpoint that proxy keys may use."""

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
    """The endpoint of a request, with the ids in its path."""

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
# Routes without parameters, and the rules of the others by method, first segment and
# number of segments.
PLAIN_ROUTES: Final = {
    (r.method, r.template.encode()): Route(r) for r in RULES if "{" not in r.template
}
_BY_START: dict[tuple[str, bytes, int], list[Rule]] = {}
for _rule in RULES:
    if "{" in _rule.template:
        _start = _rule.template.split("/")[1].encode()
        _key = _rule.method, _start, _rule.template.count("/")
        _BY_START.setdefault(_key, []).append(_rule)


def route_of(method: str, path: bytes) -> Route:
    """The route of a request to `path` (below /v1). Raises a `Problem` when its
    endpoint is not in the table."""
    if method == "HEAD":
        method = "GET"
    plain = PLAIN_ROUTES.get((method, path))
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
        raise errors.list_not_isolated(path)
    raise errors.endpoint_not_isolated(method, path)
