"""Metrics of the routing state and of the ledger, which are read at each scrape.

Resources, accounts and pools are the operators'. Model names of limits come from
requests, so the number of their series is bounded."""

from collections import Counter
from collections.abc import Sequence

from prometheus_client import Gauge

from libs.common.contracts.catalogue import HealthState, ModelLimits, ResourceState
from libs.common.runtime.service_gauges import REDIS_UP
from libs.common.runtime.sql_gauge import SQL_UP
from services.router.admin.audit import Account
from services.router.admin.live.findings import share_left
from services.router.admin.schemas.state import AdminState, Ledger

MOST_LIMITS = 200  # pairs of an account and a model
GATEWAY_STATES = ("running", "silent", "closed", "other")

IN_FLIGHT = Gauge(
    "proxy_resource_in_flight", "Leases held, over all gateways.", ["resource"]
)
AVAILABLE = Gauge(
    "proxy_resource_available",
    "0 during a cooldown or while the upstream refuses the key.",
    ["resource"],
)
INFO = Gauge(
    "proxy_resource_info",
    "1: the pool, account and health of a resource.",
    ["resource", "pool", "account", "health"],
)
COOLING_MODELS = Gauge(
    "proxy_resource_cooling_models",
    "Models that are in a cooldown on a resource.",
    ["resource"],
)
REMAINING = Gauge(
    "proxy_account_limit_remaining",
    "What is left of an account's rate limit, as the upstream last told.",
    ["account", "model", "limit"],
)
LIMIT = Gauge(
    "proxy_account_limit",
    "An account's rate limit, as the upstream last told.",
    ["account", "model", "limit"],
)
QUEUE = Gauge("proxy_queue_depth", "Telemetry events that are not stored yet.")
OLDEST = Gauge(
    "proxy_queue_oldest_seconds", "Age of the oldest event that is not stored yet."
)
WAITING = Gauge(
    "proxy_waiting",
    "Requests that wait for keys of a pool or an account, over all gateways.",
    ["pool", "account"],
)
AFFINITIES = Gauge("proxy_affinities", "Sessions that are bound to a resource.")
UNPRICED = Gauge(
    "proxy_unpriced_model",
    "1: requests of the last day used tokens of a model without a price.",
    ["model"],
)
REQUESTS = Gauge(
    "proxy_ledger_requests", "Accepted requests by where their record is.", ["state"]
)
BALANCED = Gauge(
    "proxy_ledger_balanced",
    "0: a request is provably missing, or stored twice.",
)
GATEWAYS = Gauge(
    "proxy_gateways",
    "Gateway processes by state; silent: without heartbeats, and its journal was not "
    "recovered; other: of another shard.",
    ["state"],
)


def measure(
    state: AdminState, accounts: Sequence[Account], oldest_s: float | None
) -> None:
    """Set all gauges. What is unknown keeps its last value; `proxy_redis_up` and
    `proxy_sql_up` say so."""
    REDIS_UP.set(state.queue_depth is not None)
    SQL_UP.set(state.ledger.stored is not None)
    for gauge in (
        IN_FLIGHT,
        AVAILABLE,
        INFO,
        COOLING_MODELS,
        REMAINING,
        LIMIT,
        WAITING,
        UNPRICED,
    ):
        gauge.clear()
    for resource in state.resources:
        IN_FLIGHT.labels(resource.id).set(resource.in_flight)
        AVAILABLE.labels(resource.id).set(is_available(resource))
        COOLING_MODELS.labels(resource.id).set(len(resource.paused_models))
        INFO.labels(
            resource.id,
            resource.pool_id or "",
            resource.account_id,
            resource.health.value,
        ).set(1)
    _measure_waiting(state)
    _measure_limits(state.resources)
    _measure_ledger(state.ledger)
    states = Counter(account.state for account in accounts)
    for name in GATEWAY_STATES:
        GATEWAYS.labels(name).set(states[name])
    if state.queue_depth is not None:
        QUEUE.set(state.queue_depth)
    if state.affinity_count is not None:
        AFFINITIES.set(state.affinity_count)
    if oldest_s is not None:
        OLDEST.set(oldest_s)


def _measure_waiting(state: AdminState) -> None:
    """Requests for a key, and models for a price."""
    for queue in state.waiting or ():
        named = queue.pool_id or "", queue.account_id or ""
        WAITING.labels(*named).set(queue.requests)
    for model in state.unpriced_models:
        UNPRICED.labels(_shown(model)).set(1)


def _measure_limits(resources: Sequence[ResourceState]) -> None:
    found: dict[tuple[str, str], ModelLimits] = {}
    for resource in resources:
        for limits in resource.limits:
            found[resource.account_id, limits.model] = limits
    # The scarcest, if there are too many.
    scarcest = sorted(found.items(), key=lambda item: (share_left(item[1]), item[0]))
    for (account, model), limits in scarcest[:MOST_LIMITS]:
        for name in ("requests", "tokens"):
            labels = account, _shown(model), name
            limit = getattr(limits, f"limit_{name}")
            remaining = getattr(limits, f"remaining_{name}")
            if limit is not None:
                LIMIT.labels(*labels).set(limit)
            if remaining is not None:
                REMAINING.labels(*labels).set(remaining)


def _shown(model: str) -> str:
    """As `LabelValues`, whose bound is MOST_LIMITS here."""
    return model if len(model) <= LONGEST_MODEL and model.isprintable() else "other"


LONGEST_MODEL = 100


def _measure_ledger(ledger: Ledger) -> None:
    for name in ("accepted", "stored", "pending", "in_flight", "dead_lettered"):
        count = getattr(ledger, name)
        if count is not None:
            REQUESTS.labels(name).set(count)
    if ledger.balanced is not None:
        BALANCED.set(ledger.balanced)


def is_available(resource: ResourceState) -> bool:
    """Can it take requests of any model?"""
    return resource.health in {HealthState.HEALTHY, HealthState.UNKNOWN}
