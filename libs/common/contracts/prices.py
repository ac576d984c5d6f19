"""Prices of models, and what a request cost. The gateway, ingest and the view
`costs_by_day` apply them in the same way. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

ANY_TIER = ""
NANOS = 1_000_000_000  # of a dollar


@dataclass(frozen=True, slots=True)
class Price:
    """The price of a model from a time on, per million tokens. `cached_input`: of input
    tokens that came from the upstream's cache; `reasoning`: of those output tokens that
    are reasoning, None for the price of `output`. `service_tier`: only for requests
    of this tier."""

    model: str
    valid_from: datetime
    input: float
    cached_input: float
    output: float
    reasoning: float | None = None
    service_tier: str = ANY_TIER


class Used(Protocol):
    """What a request used: its event, or its record in a gateway."""

    @property
    def created_at_ms(self) -> int: ...

    @property
    def model(self) -> str | None: ...

    @property
    def upstream_model(self) -> str | None: ...

    @property
    def service_tier(self) -> str | None: ...

    @property
    def input_tokens(self) -> int | None: ...

    @property
    def cached_tokens(self) -> int | None: ...

    @property
    def output_tokens(self) -> int | None: ...

    @property
    def reasoning_tokens(self) -> int | None: ...


class Priced(Used, Protocol):
    """The same, with what the gateway counted."""

    @property
    def cost_nanos(self) -> int | None: ...


class _Rate(NamedTuple):
    """Prices of a token, in trillionths of a dollar."""

    from_ms: int
    input: int
    cached: int
    output: int
    reasoning: int


class PriceList:
    """Prices by model and tier. Of several the newest that was valid counts: of the
    model that answered, else of the one that was asked for; of its service tier, else
    of all."""

    def __init__(self, prices: Iterable[Price]) -> None:
        self._newest_first: dict[tuple[str, str], list[_Rate]] = {}
        for price in sorted(prices, key=lambda p: p.valid_from, reverse=True):
            key = price.model, price.service_tier
            self._newest_first.setdefault(key, []).append(_rate(price))

    def __bool__(self) -> bool:
        return bool(self._newest_first)

    def nanos_of(self, used: Used) -> int | None:
        """What a request cost, in billionths of a dollar; None if its model has no
        price. Rounds once, so that sums are exact."""
        rate = self._find(used, used.upstream_model) or self._find(used, used.model)
        if rate is None:
            return None
        cached, reasoning = used.cached_tokens or 0, used.reasoning_tokens or 0
        total = (
            ((used.input_tokens or 0) - cached) * rate.input
            + cached * rate.cached
            + ((used.output_tokens or 0) - reasoning) * rate.output
            + reasoning * rate.reasoning
        )
        return max((total + 500) // 1000, 0)

    def cost_of(self, used: Priced) -> float | None:
        """What a request cost, in dollars: as the gateway counted it, else by these
        prices."""
        nanos = used.cost_nanos
        if nanos is None and self._newest_first:
            nanos = self.nanos_of(used)
        return None if nanos is None else nanos / NANOS

    def _find(self, used: Used, model: str | None) -> _Rate | None:
        if not model:
            return None
        prices, at_ms = self._newest_first, used.created_at_ms
        if used.service_tier:
            for rate in prices.get((model, used.service_tier), ()):
                if rate.from_ms <= at_ms:
                    return rate
        for rate in prices.get((model, ANY_TIER), ()):
            if rate.from_ms <= at_ms:
                return rate
        return None


def _rate(price: Price) -> _Rate:
    reasoning = price.output if price.reasoning is None else price.reasoning
    paid = price.input, price.cached_input, price.output, reasoning
    from_ms = int(price.valid_from.timestamp() * 1000)
    return _Rate(from_ms, *(round(each * 1_000_000) for each in paid))
