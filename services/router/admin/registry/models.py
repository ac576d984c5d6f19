"""`/admin/models`: model aliases, each for one provider's model."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from libs.common.contracts.events import Row
from services.router.admin.registry.providers import Publisher
from services.router.admin.schemas.registry import (
    ModelAsk,
    ModelChange,
    ModelRow,
    ModelsList,
)
from services.router.api.operation import Operation
from services.router.errors import Problem, not_found


class Rows(Protocol):
    """The part of the store used here. Raises `StoreAway`."""

    async def provider(self, id_: str) -> Row | None: ...

    async def models(self) -> list[Row]: ...

    async def model(self, alias: str) -> Row | None: ...

    async def add_model(
        self, fields: Mapping[str, Any], at: datetime
    ) -> Row | None: ...

    async def change_model(
        self, alias: str, fields: Mapping[str, Any], at: datetime
    ) -> Row | None: ...

    async def delete_model(self, alias: str) -> bool: ...


class _Models:
    def __init__(self, rows: Rows, publisher: Publisher) -> None:
        self._rows = rows
        self._publisher = publisher


class Models(_Models):
    @Operation(returns=ModelsList, problems=(503,))
    async def on_get(self) -> dict[str, Any]:
        """Model aliases."""
        return {"data": await self._rows.models(), "next_cursor": None}

    @Operation(returns=ModelRow, status=201, problems=(409, 503))
    async def on_post(self, body: ModelAsk) -> Row:
        """Register a model alias."""
        await _require_provider(self._rows, body.provider_id)
        row = await self._rows.add_model(body.model_dump(), datetime.now(UTC))
        if row is None:
            raise Problem(
                409,
                "model_exists",
                f"The alias {body.alias!r} already exists. PATCH "
                f"/admin/models/{body.alias} changes it.",
                param="alias",
            )
        await self._publisher.changed()
        return row


class OneModel(_Models):
    @Operation(returns=ModelRow, problems=(404, 503))
    async def on_get(self, alias: str) -> Row:
        """One model alias."""
        return await known_model(self._rows, alias)

    @Operation(returns=ModelRow, problems=(404, 503))
    async def on_patch(self, alias: str, body: ModelChange) -> Row:
        """Change a model alias; effective within seconds."""
        fields = body.model_dump(exclude_unset=True)
        if "provider_id" in fields:
            await _require_provider(self._rows, fields["provider_id"])
        row = await self._rows.change_model(alias, fields, datetime.now(UTC))
        if row is None:
            raise not_found("model_not_found", "/admin/models")
        await self._publisher.changed()
        return row

    @Operation(returns=ModelRow, problems=(404, 503))
    async def on_delete(self, alias: str) -> Row:
        """Delete a model alias."""
        row = await known_model(self._rows, alias)
        if not await self._rows.delete_model(alias):
            raise not_found("model_not_found", "/admin/models")
        await self._publisher.changed()
        return row


async def known_model(rows: Rows, alias: str) -> Row:
    """Raises a `Problem` if there is no such alias."""
    row = await rows.model(alias)
    if row is None:
        raise not_found("model_not_found", "/admin/models")
    return row


async def _require_provider(rows: Rows, id_: str) -> None:
    if await rows.provider(id_) is None:
        raise Problem(
            400,
            "provider_not_found",
            f"There is no provider {id_!r}. GET /admin/providers lists them.",
            param="provider_id",
        )
