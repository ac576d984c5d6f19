"""Prices of models."""

from datetime import UTC, date, datetime
from typing import Annotated, Any

from pydantic import Field

from libs.common.contracts.catalogue import Frozen
from libs.common.store.rows import iso
from services.router.admin.schemas.keys import Tier

Amount = Annotated[float, Field(ge=0, le=10**6, allow_inf_nan=False)]
MOST_PRICES = 100  # of a model


class PriceAsk(Frozen):
    """A price per million tokens. valid_from: a day in UTC; without it, always.
    service_tier: only for requests of this tier. cached_input: of input tokens from the
    upstream's cache; reasoning: of output tokens that are reasoning, without it the
    price of output."""

    input: Amount
    cached_input: Amount
    output: Amount
    reasoning: Amount | None = None
    service_tier: Tier | None = None
    valid_from: date = date(1970, 1, 1)

    def stored(self) -> dict[str, Any]:
        """As in `own_prices`."""
        day = self.valid_from
        at = datetime(day.year, day.month, day.day, tzinfo=UTC)
        return {
            **dict(self),
            "service_tier": self.service_tier or "",
            "valid_from": iso(at),
        }


class PricesAsk(Frozen):
    """All prices of a model. They replace those of PROXY_PRICES_FILE for it. Of two
    with the same tier and day the last one counts."""

    prices: Annotated[tuple[PriceAsk, ...], Field(min_length=1, max_length=MOST_PRICES)]

    def stored(self) -> list[dict[str, Any]]:
        """As in `own_prices`."""
        distinct = {
            (price.service_tier, price.valid_from): price for price in self.prices
        }
        return [price.stored() for price in distinct.values()]


class PriceRow(Frozen):
    """A price per million tokens; an empty `service_tier` is all tiers."""

    service_tier: str
    valid_from: str
    input: float
    cached_input: float
    output: float
    reasoning: float | None


class PricesRow(Frozen):
    """The prices of a model. own: set here, and not by PROXY_PRICES_FILE."""

    model: str
    own: bool
    prices: tuple[PriceRow, ...]


class UnpricedRow(Frozen):
    """A model without a price that requests of the last day used tokens of."""

    model: str
    requests: int
    last_seen_at: str


class PricesList(Frozen):
    """Prices by model. unpriced: the models whose requests no cost counts."""

    data: tuple[PricesRow, ...]
    unpriced: tuple[UnpricedRow, ...]
