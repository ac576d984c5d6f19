"""Rows of sessions, requests and decisions, and one request with its bodies."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, create_model

from libs.common.contracts.catalogue import Frozen
from libs.common.contracts.events import DecisionEvent, RequestEvent
from services.router.admin.schemas.pages import PageFilter, Parameter, page_of


class HistoryFilter(PageFilter):
    """Which rows of a table."""

    session_id: Parameter = Field(None, description="Only rows of this session.")
    resource_id: Parameter = Field(None, description="Only rows of this resource.")
    request_id: Parameter = Field(None, description="Only rows of this request.")


def _flag(value: str) -> bool:
    if value not in {"true", "false"}:
        raise ValueError("give true or false")
    return value == "true"


class RequestView(Frozen):
    """What to return of one request."""

    bodies: Annotated[bool, BeforeValidator(_flag)] = Field(
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


def _as_row(name: str, event: type[BaseModel], **more: Any) -> type[BaseModel]:
    """An event as a row of SQL: times in ISO 8601 instead of milliseconds."""
    columns: dict[str, Any] = {}
    for field, info in event.model_fields.items():
        if field in _NO_COLUMNS:
            continue
        if field.endswith("_at_ms"):
            columns[field.removesuffix("_ms")] = (str, ...)
        else:
            columns[field] = (info.annotation, ...)
    doc = f"A row of `{name.removesuffix('Row').lower()}s`."
    return create_model(name, __doc__=doc, **columns, **more)


RequestRow = _as_row("RequestRow", RequestEvent)
DecisionRow = _as_row("DecisionRow", DecisionEvent, id=(str, ...))


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


RequestWithDecisions = create_model(
    "RequestWithDecisions",
    __base__=RequestRow,
    __doc__="A request, the routing decision of each attempt, and its bodies.",
    decisions=(list[DecisionRow], ...),  # type: ignore[valid-type]
    bodies=(Bodies | None, None),  # omitted with `bodies=false`
)

SessionsPage = page_of("SessionsPage", SessionRow)
RequestsPage = page_of("RequestsPage", RequestRow)
DecisionsPage = page_of("DecisionsPage", DecisionRow)
