"""Events: what goes over the telemetry stream and the stream of captured bodies.

Times are Unix milliseconds (`_ms`), durations milliseconds, unless a name says
otherwise. Fields of events are named like the SQL columns that store them.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from libs.common.contracts.catalogue import Frozen, HealthState

EVENT_VERSION = 1


class Reason(StrEnum):
    RESPONSE_AFFINITY = "response_affinity"
    SESSION_AFFINITY = "session_affinity"
    WEIGHTED_LEAST_CONNECTIONS = "weighted_least_connections"
    SESSION_FAILOVER = "session_failover"
    PANIC = "panic"
    # The owning account is gone and PROXY_REPLAY_WITHOUT_REASONING is set.
    REPLAYED = "replayed_without_reasoning"
    # A later request on a WebSocket uses the socket's resource.
    SOCKET = "socket"


class Cause(StrEnum):
    """Why a request left a resource: how the previous attempt ended or, for a first
    attempt, why the resource that holds its session or state was not chosen."""

    RATE_LIMITED = "rate_limited"  # 429
    INSUFFICIENT_QUOTA = "insufficient_quota"  # 429: no credit left
    KEY_REFUSED = "key_refused"  # 401, 403
    MODEL_REFUSED = "model_refused"  # 403: this key has no access to the model
    # 400 for another account's reasoning; the next attempt omits it.
    REQUEST_REFUSED = "request_refused"
    SERVER_ERROR = "server_error"  # 5xx
    CONNECT_ERROR = "connect_error"  # nothing was sent
    CONNECTION_LOST = "connection_lost"  # or invalid HTTP, before the response head
    TIMEOUT = "timeout"  # no response within PROXY_FIRST_BYTE_TIMEOUT_SECONDS
    NO_KEY = "no_key"  # this gateway cannot resolve the credential
    NO_FREE_CONNECTION = "no_free_connection"  # in this gateway
    # The first request on a WebSocket names state of another account.
    LIVES_ELSEWHERE = "lives_elsewhere"
    # First attempts only.
    COOLING_DOWN = "cooling_down"
    UNHEALTHY = "unhealthy"
    GONE = "gone"  # not in the catalogue
    ANOTHER_POOL = "another_pool"


class Outcome(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class Candidate(Frozen):
    """A resource considered by a decision. `score` is (in flight + 1) / weight."""

    resource: str
    score: float | None = None
    in_flight: int | None = None
    weight: float | None = None
    health: HealthState = HealthState.HEALTHY
    refused: str | None = None  # why it was not eligible; None: it was


class DecisionEvent(Frozen):
    """The choice for one attempt, written by acquire. The entry's id is
    `decisions.id`."""

    request_id: str
    attempt: int
    created_at_ms: int
    session_id: str | None = None
    pool_id: str | None = None
    resource_id: str | None = None
    reason: str
    candidates: tuple[Candidate, ...] = ()
    degraded: bool = False
    cause: str | None = None  # a `Cause`


class RequestEvent(Frozen):
    """One finished request, written by release or by the reaper (`interrupted`).

    The entry's id is the request id (`requests.id`), so a duplicate is stored once. A
    real outcome replaces `interrupted`, never the reverse."""

    id: str
    created_at_ms: int
    completed_at_ms: int
    session_id: str | None = None
    session_name: str | None = None
    pool_id: str | None = None
    resource_id: str | None = None
    account_id: str | None = None
    proxy_key_id: str | None = None
    team_id: str | None = None  # of the proxy key when the request began
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
    # Ids that this response minted. Only the account that minted an id can resolve it.
    # Stored in a table of their own.
    minted: tuple[str, ...] = ()

    @property
    def tenant(self) -> str:
        """The owner of the minted ids."""
        return tenant_of(self.proxy_key_id, self.team_id)

    @property
    def repeats(self) -> bool:
        """Whether the response can contain ids minted earlier, as lists do."""
        return self.method not in ("POST", "WS") or self.path.endswith("/items")


def tenant_of(key_id: str | None, team_id: str | None) -> str:
    """The tenant of a request: its key's team, else its key; empty without a key."""
    if team_id:
        return f"team:{team_id}"
    return f"key:{key_id}" if key_id else ""


class HealthEvent(Frozen):
    """A resource's health changed; with `model`, for that model only."""

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


# Compression of a captured body in the stream. Ingest compresses `identity` bodies.
PACKED, PLAIN = "zstd", "identity"


class BodyNote(Frozen):
    """Describes a captured body, or why it is missing. The bytes are in another field
    of the stream entry."""

    content_type: str | None = None
    # In the order of Content-Encoding, outermost last: "zstd", or "br, zstd" for a
    # body whose own coding could not be decoded.
    encoding: str = PACKED
    original_bytes: int  # as transferred
    truncated: bool = False
    dropped: str | None = None  # why the body is missing


class PayloadEvent(Frozen):
    """The captured bodies of one request. They have a stream of their own, so that
    dropping bodies under backlog never affects the ledger."""

    request_id: str
    created_at_ms: int  # the request's
    request: BodyNote | None = None
    response: BodyNote | None = None


class GatewayEvent(Frozen):
    """A gateway's ledger report: requests accepted and ended since it started, and how
    many ended ones it still holds because they are not known to be stored. `closed` is
    the last report, by the gateway or by the one that recovered its journal."""

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

# Kinds in the telemetry stream; payloads have a stream of their own.
EVENTS: dict[str, type[Event]] = {
    "decision": DecisionEvent,
    "request": RequestEvent,
    "health": HealthEvent,
    "registry": RegistryEvent,
    "gateway": GatewayEvent,
}


@dataclass(frozen=True, slots=True)
class StreamedEvent:
    """A decoded entry of the telemetry stream.

    An entry has four fields: `kind`, `id` (of the event: time-ordered, assigned by the
    writer), `v` (EVENT_VERSION) and `data` (JSON).
    """

    entry_id: str  # assigned by Redis ("1700000000000-0"); only for acknowledgment
    id: str
    kind: Kind
    event: Event
    # The JSON that `event` was decoded from; None if it was altered since.
    data: bytes | None = field(default=None, compare=False, repr=False)

    @property
    def json(self) -> bytes:
        return self.data or self.event.model_dump_json().encode()


@dataclass(frozen=True, slots=True)
class StreamedPayload(StreamedEvent):
    """The captured bodies of one request: `kind` is `payload`, `id` the request id.
    Fields `request` and `response` hold the bodies. Gateways write many of them as one
    stream entry (libs/common/redis/capture_batches.py)."""

    event: PayloadEvent
    bodies: dict[str, bytes] = field(default_factory=dict)


Row = dict[str, Any]
"""A row by SQL column name."""
