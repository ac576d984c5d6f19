"""`/admin/models`: model aliases, each for a model of one or several providers."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol, Self

from libs.common.contracts.events import Row
from libs.common.store.interface import Actor
from services.router.admin.registry.providers import Publisher
from services.router.admin.schemas.registry import (
    ModelAsk,
    ModelChange,
    ModelRow,
    ModelsList,
    Target,
)
from services.router.api.operation import Operation, invalid
from services.router.errors import Problem, found

_found = partial(found, "model_not_found", "/admin/models")
_SINGLE = frozenset({"provider_id", "upstream_id"})


class Rows(Protocol):
    """The part of the store used here. Raises `StoreAway`."""

    def by(self, actor: Actor) -> Self: ...

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
    async def on_post(self, body: ModelAsk, actor: Actor) -> Row:
        """Register a model alias."""
        if body.missing is not None:
            cause = "give provider_id and upstream_id, or targets"
            raise invalid(body.missing, cause, ModelAsk)
        fields = body.model_dump()
        if body.targets is not None:
            fields |= await _led_to(self._rows, body.targets)
        else:
            await _require_provider(self._rows, fields["provider_id"])
        row = await self._rows.by(actor).add_model(fields, datetime.now(UTC))
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
    async def on_patch(self, alias: str, body: ModelChange, actor: Actor) -> Row:
        """Change a model alias; effective within seconds."""
        fields = body.model_dump(exclude_unset=True)
        if "targets" in fields:
            fields |= await _led_to(self._rows, body.targets)
        if fields.keys() & _SINGLE:
            fields |= await self._single(alias, fields)
        rows = self._rows.by(actor)
        row = _found(await rows.change_model(alias, fields, datetime.now(UTC)))
        await self._publisher.changed()
        return row

    async def _single(self, alias: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """What a change of the single target also sets. Raises a `Problem`."""
        if "targets" in fields:
            return {}
        if "provider_id" in fields:
            await _require_provider(self._rows, fields["provider_id"])
        targets = (await known_model(self._rows, alias))["targets"]
        if len(targets) > 1 and not fields.keys() >= _SINGLE:
            raise Problem(
                400,
                "invalid_request",
                f"The alias {alias!r} has {len(targets)} targets. Send all of them in "
                "targets, or provider_id and upstream_id to replace them by one.",
                param="targets",
            )
        return {"targets": None}

    @Operation(returns=ModelRow, problems=(404, 503))
    async def on_delete(self, alias: str, actor: Actor) -> Row:
        """Delete a model alias."""
        row = await known_model(self._rows, alias)
        _found(await self._rows.by(actor).delete_model(alias))
        await self._publisher.changed()
        return row


async def known_model(rows: Rows, alias: str) -> Row:
    """Raises a `Problem` if there is no such alias."""
    return _found(await rows.model(alias))


async def _led_to(rows: Rows, targets: Sequence[Target]) -> dict[str, Any]:
    """The columns of an alias with these targets. Raises a `Problem`."""
    for place, target in enumerate(targets):
        param = f"targets.{place}.provider_id"
        await _require_provider(rows, target.provider_id, param)
    first = targets[0]
    return {
        "provider_id": first.provider_id,
        "upstream_id": first.upstream_id,
        "targets": [target.model_dump() for target in targets],
    }


async def _require_provider(rows: Rows, id_: str, param: str = "provider_id") -> None:
    if await rows.provider(id_) is None:
        raise Problem(
            400,
            "provider_not_found",
            f"There is no provider {id_!r}. GET /admin/providers lists them.",
            param=param,
        )
