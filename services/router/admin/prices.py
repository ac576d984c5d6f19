"""`/admin/prices`: what models cost, and which have no price."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from typing import Any, Protocol, Self

from libs.common.contracts.events import Row
from libs.common.store.interface import Actor
from services.router.admin.registry.providers import Publisher
from services.router.admin.schemas.prices import PricesAsk, PricesList, PricesRow
from services.router.api.operation import Operation
from services.router.errors import Problem, found

_found = partial(found, "price_not_found", "/admin/prices")
LONGEST_MODEL = 200


class Rows(Protocol):
    """The part of the store used here. Raises `StoreAway`."""

    def by(self, actor: Actor) -> Self: ...

    async def put(
        self, model: str, prices: Sequence[Mapping[str, Any]], at: datetime
    ) -> Row: ...

    async def delete(self, model: str) -> bool: ...

    async def effective(self) -> list[Row]: ...

    async def unpriced(self, now: datetime) -> list[Row]: ...


class _Prices:
    def __init__(self, rows: Rows, publisher: Publisher) -> None:
        self._rows = rows
        self._publisher = publisher

    async def _of(self, model: str) -> dict[str, Any]:
        listed = _by_model(await self._rows.effective())
        return _found(next((e for e in listed if e["model"] == model), None))


class Prices(_Prices):
    @Operation(returns=PricesList, problems=(503,))
    async def on_get(self) -> dict[str, Any]:
        """Prices that count, and models without one."""
        unpriced = await self._rows.unpriced(datetime.now(UTC))
        return {"data": _by_model(await self._rows.effective()), "unpriced": unpriced}


class PricesOfModel(_Prices):
    @Operation(returns=PricesRow, problems=(404, 503))
    async def on_get(self, model: str) -> dict[str, Any]:
        """The prices of a model."""
        return await self._of(model)

    @Operation(returns=PricesRow, problems=(404, 503))
    async def on_put(self, model: str, body: PricesAsk, actor: Actor) -> dict[str, Any]:
        """Set all prices of a model, instead of those of PROXY_PRICES_FILE; effective
        within ten seconds."""
        if not 0 < len(model) <= LONGEST_MODEL or not model.isprintable():
            cause = f"A model has 1 to {LONGEST_MODEL} printable characters."
            raise Problem(404, "price_not_found", cause, param="model")
        await self._rows.by(actor).put(model, body.stored(), datetime.now(UTC))
        await self._publisher.changed()
        return await self._of(model)

    @Operation(returns=PricesRow, problems=(404, 503))
    async def on_delete(self, model: str, actor: Actor) -> dict[str, Any]:
        """Delete the prices that were set here; those of PROXY_PRICES_FILE hold
        again."""
        before = await self._of(model)
        _found(await self._rows.by(actor).delete(model))
        await self._publisher.changed()
        return before


def _by_model(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """`rows` are sorted by model."""
    listed = []
    for (model, own), prices in groupby(rows, lambda row: (row["model"], row["own"])):
        shown = [
            {k: v for k, v in price.items() if k not in ("model", "own")}
            for price in prices
        ]
        listed.append({"model": model, "own": own, "prices": shown})
    return listed
