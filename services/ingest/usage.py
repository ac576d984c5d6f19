"""Counts what stored requests used: tokens and cost by model, resource and tenant.

Ingest does so and not the gateway, which is the hot path. An event that is delivered
twice is counted twice. The values of labels are bounded: a model
gets series of its own once an answer reported its usage, and what is beyond the bounds
is counted as `other`."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter

from prometheus_client import Counter

from libs.common.contracts.events import Outcome, RequestEvent, StreamedEvent
from libs.common.contracts.prices import PriceList
from libs.common.runtime.label_values import LabelValues

MOST_MODELS = 50
MOST_RESOURCES = 500
MOST_TENANTS = 200
KINDS = ("input", "cached", "output", "reasoning")
_tokens_of = attrgetter(*(f"{kind}_tokens" for kind in KINDS))

TOKENS = Counter(
    "proxy_tokens_total",
    "Tokens of stored requests, by requested model and type; cached tokens are a part "
    "of the input, reasoning tokens of the output.",
    ["model", "type"],
)
RESOURCE_TOKENS = Counter(
    "proxy_resource_tokens_total",
    "Tokens of stored requests, by resource and type.",
    ["resource", "type"],
)
TENANT_TOKENS = Counter(
    "proxy_tenant_tokens_total",
    "Tokens of stored requests, by team or proxy key and type.",
    ["tenant", "type"],
)
TENANT_REQUESTS = Counter(
    "proxy_tenant_requests_total",
    "Stored requests, by team or proxy key and outcome.",
    ["tenant", "outcome"],
)
POOL_REQUESTS = Counter(
    "proxy_pool_requests_total", "Stored requests, by pool and outcome.",
    ["pool", "outcome"],
)  # fmt: skip
COST = Counter(
    "proxy_cost_total",
    "Cost of stored requests by the price list, by requested model.",
    ["model"],
)
TENANT_COST = Counter(
    "proxy_tenant_cost_total",
    "Cost of stored requests by the price list, by team or proxy key.",
    ["tenant"],
)
UNPRICED = Counter(
    "proxy_unpriced_requests_total",
    "Stored requests with tokens whose model is not in the price list.",
)


@dataclass(slots=True)
class Unpriced:
    """Requests of a model without a price. `asked`: the model that the last one named,
    if another one answered."""

    asked: str
    requests: int = 0


# What requests have in common that are counted together.
_Place = tuple[str | None, str | None, str | None, str | None, str | None, Outcome]
_place_of = attrgetter(
    *("model", "upstream_model", "resource_id", "tenant", "pool_id", "outcome")
)


@dataclass(slots=True)
class _Used:
    """What the requests of one place used. `told`: whether one reported its usage.
    `priced` and `unpriced`: how many had tokens and a price, or none."""

    requests: int = 0
    told: bool = False
    tokens: list[int] = field(default_factory=lambda: [0] * len(KINDS))
    cost: float = 0.0
    priced: int = 0
    unpriced: int = 0

    def add(self, event: RequestEvent, prices: PriceList) -> None:
        self.requests += 1
        if event.input_tokens is not None:
            self.told = True
        told = _tokens_of(event)
        if not any(told):
            return
        for position, tokens in enumerate(told):
            if tokens and tokens > 0:
                self.tokens[position] += tokens
        cost = prices.cost_of(event)
        if cost is None:
            self.unpriced += 1
        else:
            self.priced += 1
            self.cost += max(cost, 0)


class Usage:
    """Counts batches."""

    def __init__(self, prices: PriceList | None = None) -> None:
        """`prices`: None if there is no price list; then no cost is counted."""
        self.prices = prices or PriceList(())
        self._unpriced: dict[str, Unpriced] = {}
        self._models = LabelValues(MOST_MODELS)
        self._resources = LabelValues(MOST_RESOURCES)
        self._tenants = LabelValues(MOST_TENANTS)
        self._pools = LabelValues(MOST_RESOURCES)

    def count(self, events: Iterable[StreamedEvent]) -> None:
        """Count the requests among the events of a batch that was stored."""
        places: defaultdict[_Place, _Used] = defaultdict(_Used)
        prices = self.prices
        for streamed in events:
            event = streamed.event
            if isinstance(event, RequestEvent):
                places[_place_of(event)].add(event, prices)
        for place, used in places.items():
            self._tell(place, used)

    def _tell(self, place: _Place, used: _Used) -> None:
        asked, answered, resource_id, tenant_id, pool_id, outcome = place
        model = self._models.of(asked, admits=used.told)
        resource = self._resources.of(resource_id)
        tenant = self._tenants.of(tenant_id)
        # Pools of requests that were refused may be invented.
        pool = self._pools.of(pool_id, admits=resource_id is not None)
        TENANT_REQUESTS.labels(tenant, outcome.value).inc(used.requests)
        POOL_REQUESTS.labels(pool, outcome.value).inc(used.requests)
        for kind, tokens in zip(KINDS, used.tokens, strict=True):
            if tokens:
                TOKENS.labels(model, kind).inc(tokens)
                RESOURCE_TOKENS.labels(resource, kind).inc(tokens)
                TENANT_TOKENS.labels(tenant, kind).inc(tokens)
        if used.priced:
            COST.labels(model).inc(used.cost)
            TENANT_COST.labels(tenant).inc(used.cost)
        if used.unpriced:
            self._note_unpriced(answered, model, used.unpriced)

    def _note_unpriced(self, answered: str | None, model: str, requests: int) -> None:
        """Noted without a price list too: the admin API may have set one since."""
        if self.prices:
            UNPRICED.inc(requests)
        named = self._models.of(answered) or model
        found = self._unpriced.setdefault(named, Unpriced(model))
        found.asked = model
        found.requests += requests

    def take_unpriced(self) -> dict[str, Unpriced]:
        """Models without a price since the last call; at most `MOST_MODELS` names."""
        taken, self._unpriced = self._unpriced, {}
        return taken
