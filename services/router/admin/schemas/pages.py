"""Pages of rows, and their query parameters."""

from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, BeforeValidator, Field, create_model
from pydantic.json_schema import SkipJsonSchema

from libs.common.contracts.catalogue import Frozen
from libs.common.store.interface import LIMIT_MAX


def _limit(value: str) -> int:
    digits = value.isascii() and value.isdigit()
    if not digits or not 1 <= int(value[:9]) <= LIMIT_MAX:
        raise ValueError(f"give a whole number between 1 and {LIMIT_MAX}")
    return int(value[:9])


def flag(value: str) -> bool:
    """A parameter that is `true` or `false`."""
    if value not in {"true", "false"}:
        raise ValueError("give true or false")
    return value == "true"


Limit = Annotated[
    int,
    Field(ge=1, le=LIMIT_MAX, description="Number of rows."),
    BeforeValidator(_limit),
]
Parameter = str | SkipJsonSchema[None]  # in OpenAPI absent, never null


class PageFilter(Frozen):
    """Which page of rows."""

    limit: Limit = 100
    cursor: Parameter = Field(
        None, description="`next_cursor` of the page with newer rows."
    )


def model_of(struct: type[msgspec.Struct]) -> type[BaseModel]:
    """The model of a contract."""
    fields: dict[str, Any] = {
        field.name: (field.type, ... if field.required else _default(field))
        for field in msgspec.structs.fields(struct)
    }
    doc = struct.__doc__
    return create_model(struct.__name__, __base__=Frozen, __doc__=doc, **fields)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    made = field.default_factory
    return field.default if made is msgspec.NODEFAULT else made()


def page_of(name: str, row: type[BaseModel]) -> type[BaseModel]:
    """The model of one page."""
    return create_model(
        name,
        __doc__="Newest first; pass `next_cursor` as `cursor` for older rows.",
        data=(list[row], ...),  # type: ignore[valid-type]
        next_cursor=(str | None, ...),
    )
