"""The shapes of the admin API's answers; `/openapi.json` is made from them."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, Field, create_model

from libs.common.contracts.catalogue import Frozen, HealthState, ResourceState
from libs.common.contracts.events import Candidate, DecisionEvent, RequestEvent, Row


class Ledger(Frozen):
    """Requests that were accepted, by where their record is: the sum of the other
    four. null: not known, as Redis or SQL cannot be asked."""

    accepted: int | None
    stored: int | None  # rows ever written to SQL
    pending: int | None  # ended, and not stored yet
    in_flight: int | None  # under way
    dead_lettered: int | None  # records that could not be stored, parked
    balanced: bool | None  # false: a request is missing, or there twice, for certain
    problems: tuple[str, ...]  # why it is false
    unverified: tuple[str, ...]  # silent gateways whose journal was not found yet


class GatewayBooks(Frozen):
    """The same of one gateway process; `*` are all that are done with."""

    id: str
    state: Literal["running", "silent", "closed"]
    accepted: int
    stored: int
    pending: int
    in_flight: int
    dead_lettered: int
    held: int  # kept in its journal, as it does not know them to be stored
    seen_at: str | None


class WholeLedger(Ledger):
    """The ledger, and the books of each gateway it is made of."""

    queue_depth: int | None
    gateways: tuple[GatewayBooks, ...]
    timestamp: str


class AdminState(Frozen):
    """What the proxy is doing now. null: not known while something is away."""

    resources: tuple[ResourceState, ...]
    decisions: tuple[Row, ...]  # the newest, as stored
    affinity_count: int | None
    queue_depth: int | None  # events of all kinds that are not stored yet
    ledger: Ledger
    degraded: tuple[str, ...]
    admin: Literal["open", "token"]
    timestamp: str


class Finding(Frozen):
    """What a health check found."""

    resource_id: str
    health: HealthState
    verdict: str
    cause: str
    latency_ms: float | None


class Findings(Frozen):
    data: tuple[Finding, ...]


class ExplainAsk(Frozen):
    """A request as a client would send it to the gateway."""

    method: Literal["GET", "POST", "DELETE", "PATCH"] = "POST"
    path: str = Field(default="/v1/responses", max_length=4096)
    # team:ID, key:ID, or empty: whose session a named one is.
    tenant: str = Field(default="", max_length=200)
    headers: dict[str, str] = Field(default_factory=dict)
    body: Any = None


class ExplainedHints(Frozen):
    """What routing reads out of the request."""

    model: str | None
    session_id: str | None
    session_name: str | None
    pool_id: str | None
    bound_ids: tuple[str, ...]  # ids that an upstream account minted, newest first
    account_bound: bool  # carries encrypted content


class Explained(Frozen):
    """Where the request would go now. Nothing was counted or kept.

    status: ok, or why nothing can serve it: no_capacity, owner_limited (its account
    is rate limited), owner_gone (its account has no working key left).
    """

    resource_id: str | None
    reason: str
    status: str
    half_open: bool  # it would be the one trial after a pause
    retry_after_ms: int | None
    looked_up_in_sql: bool  # Redis did not know its ids
    provider_id: str | None  # if the model is an alias: of that provider
    upstream_model: str | None  # what the upstream would be asked for
    hints: ExplainedHints
    candidates: tuple[Candidate, ...]  # all of the pool, best first


# What can be stored: no control character, and within reason.
PoolId = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=200)]
KeyName = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=200)]
KeyPools = Annotated[tuple[PoolId, ...], Field(max_length=100)]
# In any time zone within what can be stored and computed with.
Expiry = Annotated[
    AwareDatetime,
    Field(ge=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(9000, 1, 1, tzinfo=UTC)),
]
PerMinute = Annotated[int, Field(ge=1, le=10**12)]


TeamId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:@-]+$", max_length=100)]


class MintAsk(Frozen):
    """A proxy key as it shall be. team_id: keys of one team share the responses,
    conversations, files and other objects that they make; without one a key's are its
    own. pool_id: every request goes to that pool. pools: it
    may choose among these, the first being its default; none: among all. Limits
    hold over all gateways together."""

    name: KeyName = ""
    team_id: TeamId | None = None
    pool_id: PoolId | None = None
    pools: KeyPools = ()
    expires_at: Expiry | None = None
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None


class KeyChange(MintAsk):
    """What is named here is changed; null lifts a limit."""

    enabled: bool = True


class ProxyKeyRow(Frozen):
    """A row of `proxy_keys`. Its secret is nowhere to be had."""

    id: str  # `requests.proxy_key_id`
    name: str
    prefix: str  # the secret's first characters, to tell keys apart
    team_id: str | None
    pool_id: str | None
    pools: tuple[str, ...]
    expires_at: str | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    enabled: bool
    created_at: str
    last_used_at: str | None  # when its newest stored request came
    revoked_at: str | None


class MintedKey(ProxyKeyRow):
    """A new proxy key with its secret, which is shown this once."""

    secret: str


class ErrorBody(Frozen):
    message: str
    type: str
    param: str | None
    code: str


class Envelope(Frozen):
    """Every error, in OpenAI's form."""

    error: ErrorBody


class SessionRow(Frozen):
    """A row of `sessions`."""

    id: str
    name: str | None
    first_seen_at: str
    last_seen_at: str
    requests: int
    total_tokens: int
    last_resource_id: str | None


_NO_COLUMNS = frozenset({"minted"})  # a table of their own


def _as_row(name: str, event: type[BaseModel], **more: Any) -> type[BaseModel]:
    """An event as SQL keeps it: moments in ISO 8601 instead of milliseconds."""
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
    """A body as it was captured: opened and redacted."""

    content_type: str | None
    content_encoding: str | None  # still in it: it could not be opened
    original_bytes: int  # that travelled
    truncated: bool  # the rest was over PROXY_MAX_CAPTURE_BYTES
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
    __doc__="A request, how each of its attempts was routed, and its bodies.",
    decisions=(list[DecisionRow], ...),  # type: ignore[valid-type]
    bodies=(Bodies | None, None),  # left out with `bodies=false`
)


def _page(name: str, row: type[BaseModel]) -> type[BaseModel]:
    return create_model(
        name,
        __doc__="Newest first; pass `next_cursor` on for older ones.",
        data=(list[row], ...),  # type: ignore[valid-type]
        next_cursor=(str | None, ...),
    )


SessionsPage = _page("SessionsPage", SessionRow)
RequestsPage = _page("RequestsPage", RequestRow)
DecisionsPage = _page("DecisionsPage", DecisionRow)
ProxyKeysPage = _page("ProxyKeysPage", ProxyKeyRow)
