"""The catalogue that the router publishes (upstream keys and model aliases) and the
health of its resources. Pure."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from libs.common.contracts.prices import Price


class Frozen(BaseModel):
    """A contract whose reader rejects unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Published(BaseModel):
    """A contract that gateways older than its writer also read: unknown fields are
    ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class HealthState(StrEnum):
    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    DEGRADED = "degraded"  # cooling down
    UNHEALTHY = "unhealthy"  # the upstream refused the key (401, 403)


class Resource(Published):
    """One upstream key. Never holds the key itself: `credential` says where it is."""

    id: str
    name: str
    pool_id: str | None  # None: serves only requests that name no pool
    account_id: str
    weight: float = Field(gt=0)
    base_url: str  # no trailing slash; ends in /v1 for OpenAI
    credential: str  # "env:NAME", "env:NAME#2" (second of a comma list), "sealed:TOKEN"
    provider_id: str | None = None  # in the registry; None: from the environment
    auth_type: str = "bearer"  # how the key is sent (libs.common.providers.key_headers)


class ModelTarget(Published):
    """A model of a provider that serves an alias. Of the targets with the lowest
    `priority` each gets requests in proportion to its `weight`."""

    provider_id: str
    upstream_id: str
    weight: float = Field(default=1.0, gt=0)
    priority: int = 0


class Alias(Published):
    """A client-facing model name. Requests for `alias` go to the resources of
    `provider_id` and ask for `upstream_id` there.

    `targets`: several of them, by priority. Gateways that do not know these use the
    first one, which is that of `provider_id` and `upstream_id`."""

    alias: str
    provider_id: str
    upstream_id: str
    targets: tuple[ModelTarget, ...] = ()


class Catalogue(Published):
    """All resources, model aliases and prices. `version` is a hash of the content."""

    version: str
    resources: tuple[Resource, ...]
    aliases: tuple[Alias, ...] = ()
    prices: tuple[Price, ...] = ()

    @property
    def pools(self) -> tuple[str, ...]:
        return tuple(sorted({r.pool_id for r in self.resources if r.pool_id}))


class ModelLimits(Frozen):
    """What the upstream last told of an account's limits for a model. null: not
    known."""

    model: str
    limit_requests: int | None = None
    remaining_requests: int | None = None
    requests_reset_at: str | None = None  # ISO 8601, UTC
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    tokens_reset_at: str | None = None


class ResourceState(Frozen):
    """A resource with its live figures: an item of `/admin/state`'s `resources`."""

    id: str
    name: str
    pool_id: str | None
    account_id: str
    weight: float
    health: HealthState
    cooldown_until: str | None  # ISO 8601, UTC
    paused_models: tuple[str, ...] = ()  # in cooldown; other models are served
    limits: tuple[ModelLimits, ...] = ()  # of its account, until they reset
    in_flight: int
    requests: int
    errors: int
    last_latency_ms: float | None
    last_error: str | None
