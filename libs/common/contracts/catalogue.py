"""The catalogue that the router publishes (upstream keys and model aliases) and the
health of its resources. Pure."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


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


class Alias(Published):
    """A client-facing model name. Requests for `alias` go to the resources of
    `provider_id` and ask for `upstream_id` there."""

    alias: str
    provider_id: str
    upstream_id: str


class Catalogue(Published):
    """All resources and model aliases. `version` is a hash of the content."""

    version: str
    resources: tuple[Resource, ...]
    aliases: tuple[Alias, ...] = ()

    @property
    def pools(self) -> tuple[str, ...]:
        return tuple(sorted({r.pool_id for r in self.resources if r.pool_id}))


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
    in_flight: int
    requests: int
    errors: int
    last_latency_ms: float | None
    last_error: str | None
