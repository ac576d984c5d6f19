"""Events: what goes over the telemetry stream.

Times are Unix milliseconds (`_ms`), durations milliseconds, unless a name says
otherwise. Fields of events are named like the SQL columns that store them, and their
types say what these columns hold.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from libs.common.contracts.catalogue import HealthState
from libs.common.contracts.payloads import Payload

EVENT_VERSION = 1
# An index row of PostgreSQL has at most 2704 bytes, and a character up to four. Longer
# upstream ids are not stored.
ID_CHARS_MAX = 512
TEXT_CHARS = 8_000
LARGEST = 2**53 - 1  # the largest integer that JSON readers agree on; fits into bigint
END_OF_TIME_MS = 253_402_300_800_000  # the year 10000

Id = Annotated[str, Meta(max_length=ID_CHARS_MAX)]
Text = Annotated[str, Meta(max_length=TEXT_CHARS)]
Time = Annotated[int, Meta(ge=0, lt=END_OF_TIME_MS)]
Small = Annotated[int, Meta(ge=1 - 2**31, lt=2**31)]  # an integer column
Count = Annotated[int, Meta(ge=-LARGEST, le=LARGEST)]
Number = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]


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
    MODEL_REFUSED = "model_refused"  # 403, or 404 of Azure: not for this key
    # 400 for another account's reasoning; the next attempt omits it.
    REQUEST_REFUSED = "request_refused"
    SERVER_ERROR = "server_error"  # 5xx
    CONNECT_ERROR = "connect_error"  # nothing was sent
    CONNECTION_LOST = "connection_lost"  # or invalid HTTP, before the response head
    # A kept connection ended before a byte of the answer: servers close idle ones.
    STALE_CONNECTION = "stale_connection"
    TIMEOUT = "timeout"  # no response within PROXY_FIRST_BYTE_TIMEOUT_SECONDS
    NO_KEY = "no_key"  # this gateway cannot resolve the credential
    NO_FREE_CONNECTION = "no_free_connection"  # in this gateway
    # The first request on a WebSocket names state of another account, or a request for
    # a model alias that of another target.
    LIVES_ELSEWHERE = "lives_elsewhere"
    # No resource of the alias's target before could serve; its decision says why.
    TARGET_UNAVAILABLE = "target_unavailable"
    # First attempts only.
    COOLING_DOWN = "cooling_down"
    UNHEALTHY = "unhealthy"
    GONE = "gone"  # not in the catalogue
    ANOTHER_POOL = "another_pool"
    LIMIT_REACHED = "limit_reached"  # its account cannot take the request yet
    BUSY = "busy"  # it has as many requests in flight as it may have


class Outcome(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class Contract(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """An event, or a part of one. Readers reject unknown fields."""


class Candidate(Contract, frozen=True, kw_only=True, omit_defaults=True):
    """A resource considered by a decision. `score` is (in flight + 1) / weight.

    Its JSON omits members that are None, which are most of them: databases parse and
    keep each one."""

    resource: Text
    score: Number | None = None
    in_flight: Count | None = None
    weight: Number | None = None
    # A default of a factory is not omitted.
    health: HealthState = field(default_factory=lambda: HealthState.HEALTHY)
    refused: Text | None = None  # why it was not eligible; None: it was
    # Of its account and the request's model, as far as the upstream told them.
    remaining_requests: Count | None = None
    remaining_tokens: Count | None = None
    limit_resets_at_ms: Count | None = None


class DecisionEvent(Contract, frozen=True, kw_only=True):
    """The choice for one attempt, written by acquire. The entry's id is
    `decisions.id`."""

    request_id: Id
    attempt: Small
    created_at_ms: Time
    session_id: Id | None = None
    pool_id: Text | None = None
    resource_id: Id | None = None
    reason: Text
    candidates: tuple[Candidate, ...] = ()
    degraded: bool = False
    cause: Text | None = None  # a `Cause`
    waited_ms: Count | None = None  # in a queue, before this choice


class RequestEvent(Contract, frozen=True, kw_only=True):
    """One finished request, written by release or by the reaper (`interrupted`).

    The entry's id is the request id (`requests.id`), so a duplicate is stored once. A
    real outcome replaces `interrupted`, never the reverse."""

    id: Text
    created_at_ms: Time
    completed_at_ms: Time
    session_id: Id | None = None
    session_name: Text | None = None
    pool_id: Text | None = None
    resource_id: Id | None = None
    account_id: Text | None = None
    proxy_key_id: Text | None = None
    team_id: Text | None = None  # of the proxy key when the request began
    method: Text
    path: Text
    model: Text | None = None
    upstream_model: Text | None = None
    transport: Literal["http", "sse", "ws"] = "http"
    status_code: Small | None = None
    outcome: Outcome
    error_code: Text | None = None
    error_message: Text | None = None
    attempts: Small = 0
    latency_ms: Number | None = None
    upstream_ms: Number | None = None
    first_token_ms: Number | None = None
    overhead_ms: Number | None = None
    input_tokens: Count | None = None
    cached_tokens: Count | None = None
    output_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    total_tokens: Count | None = None
    usage_state: Literal["final", "unknown"] = "unknown"
    request_bytes: Count = 0
    response_bytes: Count = 0
    service_tier: Text | None = None
    response_id: Id | None = None
    previous_response_id: Text | None = None
    gateway_id: Text | None = None
    cost_nanos: Count | None = None  # by the price list, in billionths of a dollar
    # Ids that this response minted. Only the account that minted an id can resolve it.
    # Stored in a table of their own.
    minted: tuple[Id, ...] = ()

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


class HealthEvent(Contract, frozen=True, kw_only=True):
    """A resource's health changed; with `model`, for that model only."""

    created_at_ms: Time
    resource_id: Id
    model: Text | None = None
    before: HealthState
    after: HealthState
    cause: Text
    cooldown_until_ms: Count | None = None


class BudgetEvent(Contract, frozen=True, kw_only=True):
    """A budget's spend passed its soft threshold (`soft`) or its limit (`exhausted`),
    for the first time in a window. `subject`: `key:<id>` or `team:<id>`. Money is in
    billionths of a dollar; limits that it does not have are absent."""

    created_at_ms: Time
    subject: Text
    state: Literal["soft", "exhausted"]
    window_start_ms: Time
    window_end_ms: Count
    tokens: Count
    nanos: Count
    limit_tokens: Count | None = None
    limit_nanos: Count | None = None


class RegistryEvent(Contract, frozen=True, kw_only=True):
    """The catalogue changed."""

    created_at_ms: Time
    version: Text
    resources: tuple[str, ...]
    aliases: tuple[str, ...] = ()


class GatewayEvent(Contract, frozen=True, kw_only=True):
    """A gateway's ledger report: requests accepted and ended since it started, and how
    many ended ones it still holds because they are not known to be stored. `closed` is
    the last report, by the gateway or by the one that recovered its journal."""

    created_at_ms: Time
    gateway_id: Text
    started_at_ms: Time
    accepted: Count
    ended: Count
    held: Count
    state: Literal["running", "closed"] = "running"


Kind = Literal[
    "decision", "request", "health", "registry", "gateway", "budget", "payload"
]
Event = (
    DecisionEvent
    | RequestEvent
    | HealthEvent
    | RegistryEvent
    | GatewayEvent
    | BudgetEvent
)

EVENTS: dict[str, type[Event]] = {
    "decision": DecisionEvent,
    "request": RequestEvent,
    "health": HealthEvent,
    "registry": RegistryEvent,
    "gateway": GatewayEvent,
    "budget": BudgetEvent,
}


class StreamedEvent(msgspec.Struct, frozen=True, gc=False):
    """A decoded entry of the telemetry stream, or one payload of its entry.

    An entry has four fields: `kind`, `id` (of the event: time-ordered, assigned by the
    writer), `v` (EVENT_VERSION) and `data` (JSON).
    """

    entry_id: str  # assigned by Redis ("1700000000000-0"); only for acknowledgment
    id: str
    kind: Kind
    event: Event | Payload  # `Payload` is in the stream of captured bodies
    # The JSON that `event` was decoded from; None if it was altered since.
    data: bytes | None = None

    @property
    def json(self) -> bytes:
        """The event, without captured bodies."""
        if self.data is not None:
            return self.data
        if isinstance(self.event, Payload):
            return self.event.described()
        return encode(self.event)


encode = msgspec.json.Encoder().encode
"""JSON of an event or of a part of one."""

Row = dict[str, Any]
"""A row by SQL column name."""
