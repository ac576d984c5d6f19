"""Prices of models: the file of PROXY_PRICES_FILE, and those in SQL.

The file is TOML. Each price is a table `[[price]]` with `model`, `input`,
`cached_input`, `output` and optionally `reasoning` (per million tokens), `valid_from`,
a date in UTC, and optionally `service_tier`."""

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from libs.common.contracts.events import Row
from libs.common.contracts.prices import Price
from libs.common.errors import SettingError, shown
from libs.common.store.admin.audit_log import AuditedRows
from libs.common.store.interface import Fetch
from libs.common.store.rows import iso

VARIABLE = "PROXY_PRICES_FILE"


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, max_length=200)
    input: float = Field(ge=0, allow_inf_nan=False)
    cached_input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)
    valid_from: date
    reasoning: float | None = Field(None, ge=0, allow_inf_nan=False)
    service_tier: str = Field("", pattern=r"^[a-z0-9_-]*$", max_length=40)


class _List(BaseModel):
    model_config = ConfigDict(extra="forbid")

    price: list[_Line]


def read_prices(path: Path) -> list[Price]:
    """Read and validate the file. Raises `SettingError` with the problem."""
    try:
        listed = _List.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise _wrong(path, f"cannot be read ({error.strerror})") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _wrong(path, f"{where}: {_problem(first['type'], where)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _wrong(path, f"is not TOML: {error}") from None
    prices = [_price(line) for line in listed.price]
    if len({(p.model, p.service_tier, p.valid_from) for p in prices}) < len(prices):
        raise _wrong(path, "has two prices for the same model, tier and day")
    return prices


def _price(line: _Line) -> Price:
    day = line.valid_from
    valid_from = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return Price(
        line.model,
        valid_from,
        line.input,
        line.cached_input,
        line.output,
        line.reasoning,
        line.service_tier,
    )


def _problem(kind: str, where: str) -> str:
    """What pydantic's `kind` of error means for a value."""
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return "is not known here"
    member = where.rpartition(".")[2]
    if member in {"input", "cached_input", "output", "reasoning"}:
        return "is not a number of 0 or more"
    return "is not a date" if member == "valid_from" else "is not valid"


def _wrong(path: Path, what: str) -> SettingError:
    return SettingError(
        VARIABLE, f"{shown(path)}: {what}", "See docs/queries.md for its format"
    )


# In SQL -----------------------------------------------------------------------------

MOST_UNPRICED = 20
RECENT = timedelta(days=1)


class PriceRows(AuditedRows):
    """Prices that the admin API set: they replace those of the file for their models.
    Methods raise `StoreAway`."""

    async def put(
        self, model: str, prices: Sequence[Mapping[str, Any]], at: datetime
    ) -> Row:
        """Set all prices of a model."""
        values = {"id": model, "prices": json.dumps(list(prices)), "at": iso(at)}
        (row,) = await self._fetch("put_own_prices", values)
        return row

    async def delete(self, model: str) -> bool:
        """The file's prices hold again. Return False if there were none of its own."""
        return await self._one("delete_own_prices", model) is not None

    async def effective(self) -> list[Row]:
        """All prices that count: the file's, and those set here (`own`)."""
        return await self._fetch("price_list", {})

    async def unpriced(self, now: datetime) -> list[Row]:
        """Models without a price that requests of the last day used tokens of, if
        there are prices at all."""
        values = {"since": iso(now - RECENT), "rows": MOST_UNPRICED}
        return await self._fetch("unpriced_models", values)


def unpriced_problem(models: Sequence[str]) -> str | None:
    """What is wrong if requests used models without a price."""
    if not models:
        return None
    shown = ", ".join(model[:60] for model in models[:5])
    more = ", ..." if len(models) > 5 else ""
    return f"prices: none for {shown}{more}; what they cost is not counted"


async def read_price_list(fetch: Fetch) -> tuple[Price, ...]:
    """All prices that count. Raises `StoreAway`."""
    return prices_of(await fetch("price_list", {}))


def prices_of(rows: Iterable[Row]) -> tuple[Price, ...]:
    return tuple(
        Price(
            row["model"],
            datetime.fromisoformat(row["valid_from"]),
            row["input"],
            row["cached_input"],
            row["output"],
            row["reasoning"],
            row["service_tier"],
        )
        for row in rows
    )
