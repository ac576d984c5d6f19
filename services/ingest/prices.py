"""Reads the price list, a TOML file. Each price is a table `[[price]]` with `model`,
`input`, `cached_input` and `output` (per million tokens), and `valid_from`, a date in
UTC."""

import tomllib
from datetime import UTC, date, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from libs.common.errors import SettingError
from libs.common.store.interface import Price

VARIABLE = "PROXY_PRICES_FILE"


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, max_length=200)
    input: float = Field(ge=0, allow_inf_nan=False)
    cached_input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)
    valid_from: date


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
        raise _wrong(path, f"{where}: {first['msg']}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _wrong(path, f"is not TOML: {error}") from None
    prices = [_price(line) for line in listed.price]
    if len({(p.model, p.valid_from) for p in prices}) < len(prices):
        raise _wrong(path, "has two prices for the same model and day")
    return prices


def _price(line: _Line) -> Price:
    day = line.valid_from
    valid_from = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return Price(line.model, valid_from, line.input, line.cached_input, line.output)


def _wrong(path: Path, what: str) -> SettingError:
    return SettingError(
        VARIABLE, f"{path}: {what}", "See docs/queries.md for its format"
    )
