"""State of the proxy, the ledger, and results of health checks."""

from typing import Literal

from libs.common.contracts.catalogue import Frozen, HealthState, ResourceState
from libs.common.contracts.events import Row
from libs.common.redis.keys import DEFAULT_NAMESPACE


class Ledger(Frozen):
    """Accepted requests by where their records are: `accepted` is the sum of the next
    four. null: unknown, because Redis or SQL is unreachable."""

    accepted: int | None
    stored: int | None  # rows ever written to SQL
    pending: int | None  # ended, but not stored yet
    in_flight: int | None
    dead_lettered: int | None  # records that could not be stored, set aside
    balanced: bool | None  # false: a request is provably missing, or counted twice
    problems: tuple[str, ...]  # why `balanced` is false
    unverified: tuple[str, ...]  # silent gateways whose journal was not recovered yet


class GatewayBooks(Frozen):
    """The counts of one gateway process; `*` is the sum of old ones. `other`: of a
    gateway of another shard, whose own routers know whether it runs, and what it did
    since it was last seen in SQL."""

    id: str
    shard: str
    state: Literal["running", "silent", "closed", "other"]
    accepted: int
    stored: int
    pending: int
    in_flight: int
    dead_lettered: int
    held: int  # in its journal, because it does not know that they are stored
    seen_at: str | None


class WholeLedger(Ledger):
    """The ledger, in total and for each gateway."""

    queue_depth: int | None
    gateways: tuple[GatewayBooks, ...]
    timestamp: str


class WaitingRequests(Frozen):
    """Requests that wait for the keys of a pool (null: they name none), or for those of
    the only account that can serve them. `shares`: the proxy keys, or sessions of
    requests without one, that they belong to and that are served in turn."""

    pool_id: str | None
    account_id: str | None
    requests: int
    shares: int


class AdminState(Frozen):
    """What the proxy is doing now. null: unknown, because a service is unreachable.
    Decisions and the ledger are those of all shards, all else that of `shard`."""

    resources: tuple[ResourceState, ...]
    decisions: tuple[Row, ...]  # the newest stored ones
    affinity_count: int | None
    queue_depth: int | None  # events of all kinds that are not stored yet
    waiting: tuple[WaitingRequests, ...] | None
    ledger: Ledger
    unpriced_models: tuple[str, ...] = ()  # used in the last day
    degraded: tuple[str, ...]
    admin: Literal["open", "token"]
    shard: str = DEFAULT_NAMESPACE  # its Redis namespace
    timestamp: str


class Finding(Frozen):
    """The result of a health check."""

    resource_id: str
    health: HealthState
    verdict: str
    cause: str
    latency_ms: float | None


class Nothing(Frozen):
    """There is nothing to choose: an empty object. It may be left out, but not the
    content type."""


class Findings(Frozen):
    data: tuple[Finding, ...]
