"""What crosses a process border: catalogue, decisions, events, verdicts.

Times are Unix milliseconds (`_ms`), durations milliseconds, unless a name says
otherwise. Field names of events are the column names of design.md section 5.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

EVENT_VERSION = 1


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HealthState(StrEnum):
    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    DEGRADED = "degraded"  # cooling down
    UNHEALTHY = "unhealthy"  # the upstream refused the key (401, 403)


class Reason(StrEnum):
    RESPONSE_AFFINITY = "response_affinity"
    SESSION_AFFINITY = "session_affinity"
    WEIGHTED_LEAST_CONNECTIONS = "weighted_least_connections"
    SESSION_FAILOVER = "session_failover"
    PANIC = "panic"
    # The owning account is gone; PROXY_REPLAY_WITHOUT_REASONING allows it.
    REPLAYED = "replayed_without_reasoning"
    # A later request of a socket goes where the socket goes.
    SOCKET = "socket"


class Cause(StrEnum):
    """What made a request leave a resource: how the attempt there ended, or, of a
    first attempt, why the home of its session or state was passed over."""

    RATE_LIMITED = "rate_limited"  # 429
    INSUFFICIENT_QUOTA = "insufficient_quota"  # 429: no money left
    KEY_REFUSED = "key_refused"  # 401, 403
    MODEL_REFUSED = "model_refused"  # 403: this key is not given this model
    # 400 for another account's reasoning; it is left out the next time.
    REQUEST_REFUSED = "request_refused"
    SERVER_ERROR = "server_error"  # 5xx
    CONNECT_ERROR = "connect_error"  # nothing was sent
    CONNECTION_LOST = "connection_lost"  # or no HTTP, before the answer's head
    TIMEOUT = "timeout"  # no answer within PROXY_FIRST_BYTE_TIMEOUT_SECONDS
    NO_KEY = "no_key"  # this gateway cannot resolve it
    NO_FREE_CONNECTION = "no_free_connection"  # this gateway has no more
    # Of sockets: their first request names state that is elsewhere.
    LIVES_ELSEWHERE = "lives_elsewhere"
    # Why a home is passed over.
    COOLING_DOWN = "cooling_down"
    UNHEALTHY = "unhealthy"
    GONE = "gone"  # from the catalogue
    ANOTHER_POOL = "another_pool"


class Outcome(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class Published(BaseModel):
    """Read also by older gateways than the router that wrote it: what they do
    not know they pass over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Resource(Published):
    """One upstream key. Never holds a plain key: `credential` says where it is."""

    id: str
    name: str
    pool_id: str | None  # None: serves only requests that name no pool
    account_id: str
    weight: float = Field(gt=0)
    base_url: str  # no trailing slash, ends in /v1 for OpenAI
    credential: str  # "env:NAME", "env:NAME#2" (second of a comma list), "sealed:TOKEN"
    provider_id: str | None = None  # of the registry; None: from the environment


class Alias(Published):
    """A name for a model of one provider: requests for it go to that provider's
    resources, and ask for `upstream_id` there."""

    alias: str
    provider_id: str
    upstream_id: str


class Catalogue(Published):
    """All resources and model aliases. `version` is a hash of the content, so equal
    means same."""

    version: str
    resources: tuple[Resource, ...]
    aliases: tuple[Alias, ...] = ()

    @property
    def pools(self) -> tuple[str, ...]:
        return tuple(sorted({r.pool_id for r in self.resources if r.pool_id}))


class Candidate(Frozen):
    """A resource as a decision saw it. `score` is (in flight + 1) / weight."""

    resource: str
    score: float | None = None
    in_flight: int | None = None
    weight: float | None = None
    health: HealthState = HealthState.HEALTHY
    refused: str | None = None  # why it was not eligible; None for the eligible


class DecisionEvent(Frozen):
    """One attempt's choice; written by acquire. The entry's id is `decisions.id`."""

    request_id: str
    attempt: int
    created_at_ms: int
    session_id: str | None = None
    pool_id: str | None = None
    resource_id: str | None = None
    reason: str
    candidates: tuple[Candidate, ...] = ()
    degraded: bool = False
    cause: str | None = None  # a `Cause`, if anything was left


class RequestEvent(Frozen):
    """One finished request; written by release, or by the reaper
    (`interrupted`). The entry's id is the request id, which is `requests.id`,
    so a request is stored once whatever is sent twice; a real outcome replaces
    `interrupted`, never the other way round."""

    id: str
    created_at_ms: int
    completed_at_ms: int
    session_id: str | None = None
    session_name: str | None = None
    pool_id: str | None = None
    resource_id: str | None = None
    account_id: str | None = None
    proxy_key_id: str | None = None
    team_id: str | None = None  # of the proxy key, at that time
    method: str
    path: str
    model: str | None = None
    upstream_model: str | None = None
    transport: Literal["http", "sse", "ws"] = "http"
    status_code: int | None = None
    outcome: Outcome
    error_code: str | None = None
    error_message: str | None = None
    attempts: int = 0
    latency_ms: float | None = None
    upstream_ms: float | None = None
    first_token_ms: float | None = None
    overhead_ms: float | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    total_tokens: int | None = None
    usage_state: Literal["final", "unknown"] = "unknown"
    request_bytes: int = 0
    response_bytes: int = 0
    service_tier: str | None = None
    response_id: str | None = None
    previous_response_id: str | None = None
    gateway_id: str | None = None
    # Ids this answer minted: the account that serves it can be asked for them
    # again, and no other. In SQL a table of their own, no column.
    minted: tuple[str, ...] = ()

    @property
    def tenant(self) -> str:
        """To whom the minted ids belong."""
        return tenant_of(self.proxy_key_id, self.team_id)

    @property
    def repeats(self) -> bool:
        """May the answer have told ids that were there before, as lists do?"""
        return self.method not in ("POST", "WS") or self.path.endswith("/items")


def tenant_of(key_id: str | None, team_id: str | None) -> str:
    """Whose a request is: its key's team, else its key, else nobody's (empty)."""
    if team_id:
        return f"team:{team_id}"
    return f"key:{key_id}" if key_id else ""


class HealthEvent(Frozen):
    """A resource's health changed; with `model`, for that model alone."""

    created_at_ms: int
    resource_id: str
    model: str | None = None
    before: HealthState
    after: HealthState
    cause: str
    cooldown_until_ms: int | None = None


class RegistryEvent(Frozen):
    """The catalogue changed."""

    created_at_ms: int
    version: str
    resources: tuple[str, ...]
    aliases: tuple[str, ...] = ()


# How a captured body is packed on its way to ingest, which packs what is not.
PACKED, PLAIN = "zstd", "identity"


class BodyNote(Frozen):
    """What is known of a captured body, or why there is none. The bytes travel
    beside the JSON, in a field of the entry."""

    content_type: str | None = None
    # As Content-Encoding would say it, the outermost last: "zstd", or "br, zstd"
    # when what travelled could not be opened.
    encoding: str = PACKED
    original_bytes: int  # that travelled
    truncated: bool = False
    dropped: str | None = None  # why the body is not there


class PayloadEvent(Frozen):
    """The captured bodies of one request. On a stream of its own, so that what is
    done about a backlog of bodies never touches the ledger."""

    request_id: str
    created_at_ms: int  # the request's
    request: BodyNote | None = None
    response: BodyNote | None = None


class GatewayEvent(Frozen):
    """A gateway's books: what it accepted and ended since it started, and how many
    of the ended it still holds, as it does not know them to be stored. `closed` is
    its last word, by itself or by who found its journal."""

    created_at_ms: int
    gateway_id: str
    started_at_ms: int
    accepted: int
    ended: int
    held: int
    state: Literal["running", "closed"] = "running"


Kind = Literal["decision", "request", "health", "registry", "gateway", "payload"]
Event = (
    DecisionEvent
    | RequestEvent
    | HealthEvent
    | RegistryEvent
    | GatewayEvent
    | PayloadEvent
)

# Of the telemetry stream; a payload has its own.
EVENTS: dict[str, type[Event]] = {
    "decision": DecisionEvent,
    "request": RequestEvent,
    "health": HealthEvent,
    "registry": RegistryEvent,
    "gateway": GatewayEvent,
}


@dataclass(frozen=True, slots=True)
class StreamedEvent:
    """An entry of the telemetry stream, decoded.

    On the wire an entry has four fields: `kind`, `id` (the event's own,
    time-ordered, made by the writer), `v` (EVENT_VERSION) and `data` (JSON).
    """

    entry_id: str  # Redis's, "1700000000000-0"; for acknowledging only
    id: str
    kind: Kind
    event: Event
    # The JSON that `event` was read from, unless something was taken out of it.
    data: bytes | None = field(default=None, compare=False, repr=False)

    @property
    def json(self) -> bytes:
        return self.data or self.event.model_dump_json().encode()


@dataclass(frozen=True, slots=True)
class StreamedPayload(StreamedEvent):
    """The captured bodies of one request: `kind` is `payload`, `id` the request's.
    Fields `request` and `response` hold the bodies that its notes speak of. Gateways
    put many into one entry (`payload_batches`)."""

    event: PayloadEvent
    bodies: dict[str, bytes] = field(default_factory=dict)


class ResourceState(Frozen):
    """A card of the dashboard; the shape of `/admin/state`'s `resources`."""

    id: str
    name: str
    pool_id: str | None
    account_id: str
    weight: float
    health: HealthState
    cooldown_until: str | None  # ISO 8601, UTC
    paused_models: tuple[str, ...] = ()  # rate limited there, others are served
    in_flight: int
    requests: int
    errors: int
    last_latency_ms: float | None
    last_error: str | None


VerdictKind = Literal["ok", "fault", "limited", "exhausted", "refused", "neutral"]


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What a check or an answer says of a resource's health.

    kind: ok (works), fault (5xx, connect error, timeout: counts in a row),
    limited (429: cool down at once, for its model when there is one), exhausted
    (no money left: unhealthy; a check that passes afterwards proves only the key, so
    one request tries it), refused (401, 403: unhealthy until a check passes),
    neutral (says nothing of the resource).
    """

    kind: VerdictKind
    cause: str = ""
    cooldown_ms: int | None = None
    latency_ms: float | None = None


Row = dict[str, Any]
"""A row of history, by SQL column name."""
