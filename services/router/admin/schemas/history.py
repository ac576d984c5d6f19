"""Rows of sessions, requests and decisions, and one request with its bodies."""

from typing import Annotated, Any, Literal, cast

import msgspec
from pydantic import BaseModel, BeforeValidator, Field, create_model

from libs.common.contracts.catalogue import Frozen
from libs.common.contracts.events import DecisionEvent, RequestEvent
from libs.common.store.interface import STATUS
from services.router.admin.schemas.explain import Candidate
from services.router.admin.schemas.pages import PageFilter, Parameter, flag, page_of

Since = Annotated[
    Parameter, Field(alias="from", description="ISO 8601: only rows from then on.")
]
Until = Annotated[
    Parameter, Field(alias="to", description="ISO 8601: only rows of before.")
]


class HistoryFilter(PageFilter):
    """Which rows of a table."""

    session_id: Parameter = Field(None, description="Only rows of this session.")
    resource_id: Parameter = Field(None, description="Only rows of this resource.")
    request_id: Parameter = Field(None, description="Only rows of this request.")
    since: Since = None
    until: Until = None


class RequestsFilter(HistoryFilter):
    """Which requests."""

    status: Parameter = Field(
        None,
        description="A status code, or a class such as `4xx`.",
        pattern=STATUS.pattern,
    )
    outcome: Literal["completed", "failed", "cancelled", "interrupted"] = Field(
        default=cast(Any, None), description="Only requests that ended so."
    )
    model: Parameter = Field(None, description="Only requests for this model.")
    proxy_key_id: Parameter = Field(None, description="Only requests of this key.")
    team_id: Parameter = Field(
        None, description="Only requests that a key of this team made."
    )
    error_code: Parameter = Field(None, description="Only requests with this error.")


class DecisionsFilter(HistoryFilter):
    """Which decisions."""

    reason: Parameter = Field(None, description="Only decisions with this reason.")


class RequestView(Frozen):
    """What to return of one request."""

    bodies: Annotated[bool, BeforeValidator(flag)] = Field(
        True, description="`false` omits the captured bodies."
    )


class SessionRow(Frozen):
    """A row of `sessions`."""

    id: str
    name: str | None
    first_seen_at: str
    last_seen_at: str
    requests: int
    total_tokens: int
    last_resource_id: str | None


_NO_COLUMNS = frozenset({"minted"})  # stored in a table of their own


def _as_row(name: str, event: type[msgspec.Struct], **more: Any) -> type[BaseModel]:
    """An event as a row of SQL: times in ISO 8601 instead of milliseconds."""
    columns: dict[str, Any] = {}
    for field in msgspec.structs.fields(event):
        if field.name.endswith("_at_ms"):
            columns[field.name.removesuffix("_ms")] = (str, ...)
        elif field.name not in _NO_COLUMNS:
            columns[field.name] = (field.type, ...)
    columns |= more
    doc = f"A row of `{name.removesuffix('Row').lower()}s`."
    return create_model(name, __doc__=doc, **columns)


RequestRow = _as_row("RequestRow", RequestEvent)
_candidates = tuple[Candidate, ...]
DecisionRow = _as_row(
    "DecisionRow", DecisionEvent, id=(str, ...), candidates=(_candidates, ...)
)


class CapturedBody(Frozen):
    """A captured body, decompressed and redacted."""

    content_type: str | None
    content_encoding: str | None  # a coding that could not be decoded
    original_bytes: int  # sent over the network
    truncated: bool  # cut at PROXY_MAX_CAPTURE_BYTES
    dropped: str | None  # why there is no body
    encoding: Literal["utf-8", "base64"] | None  # of `body`
    body: str | None


class Bodies(Frozen):
    """null: not captured, or not stored yet."""

    request: CapturedBody | None
    response: CapturedBody | None


class Timeline(Frozen):
    """Milliseconds after the request was received; null: not known. Of several attempts
    the last one's."""

    received_ms: float
    acquired_ms: float | None  # a resource was chosen
    sent_ms: float | None
    first_byte_ms: float | None
    first_token_ms: float | None
    done_ms: float | None


RequestWithDecisions = create_model(
    "RequestWithDecisions",
    __base__=RequestRow,
    __doc__="A request, its times and cost, the routing decision of each attempt, and "
    "its bodies.",
    cost_usd=(float | None, ...),  # null: its model has no price
    timeline=(Timeline, ...),
    decisions=(list[DecisionRow], ...),  # type: ignore[valid-type]
    bodies=(Bodies | None, None),  # omitted with `bodies=false`
)

SessionsPage = page_of("SessionsPage", SessionRow)
RequestsPage = page_of("RequestsPage", RequestRow)
DecisionsPage = page_of("DecisionsPage", DecisionRow)
