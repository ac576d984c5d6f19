"""`/admin/models`: names of models, and the provider's model each stands for."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from falcon.asgi import Request, Response

from libs.common.contracts.events import Row
from services.router.admin.registry.providers import Told
from services.router.admin.request_body import asked
from services.router.admin.schemas.registry import ModelAsk, ModelChange
from services.router.errors import Problem

WHAT = "model"


class Rows(Protocol):
    """What of the store is asked for here; raises `StoreAway`."""

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


class Models:
    """All of them."""

    def __init__(self, rows: Rows, told: Told) -> None:
        self._rows = rows
        self._told = told

    async def on_get(self, _: Request, resp: Response) -> None:
        resp.media = {"data": await self._rows.models(), "next_cursor": None}

    async def on_post(self, req: Request, resp: Response) -> None:
        given = await asked(req, ModelAsk, WHAT)
        await _known_provider(self._rows, given.provider_id)
        row = await self._rows.add_model(given.model_dump(), _now())
        if row is None:
            raise Problem(
                409,
                "model_exists",
                f"There is an alias {given.alias!r} already. PATCH "
                f"/admin/models/{given.alias} changes it.",
                param="alias",
            )
        await self._told.changed()
        resp.status = 201
        resp.media = row


class OneModel:
    """One of them."""

    def __init__(self, rows: Rows, told: Told) -> None:
        self._rows = rows
        self._told = told

    async def on_get(self, _: Request, resp: Response, alias: str) -> None:
        resp.media = await known_model(self._rows, alias)

    async def on_patch(self, req: Request, resp: Response, alias: str) -> None:
        given = await asked(req, ModelChange, WHAT)
        fields = given.model_dump(exclude_unset=True)
        if "provider_id" in fields:
            await _known_provider(self._rows, fields["provider_id"])
        row = await self._rows.change_model(alias, fields, _now())
        if row is None:
            raise _not_found()
        await self._told.changed()
        resp.media = row

    async def on_delete(self, _: Request, resp: Response, alias: str) -> None:
        row = await known_model(self._rows, alias)
        if not await self._rows.delete_model(alias):
            raise _not_found()
        await self._told.changed()
        resp.media = row


async def known_model(rows: Rows, alias: str) -> Row:
    """Raises a `Problem` when there is none."""
    row = await rows.model(alias)
    if row is None:
        raise _not_found()
    return row


async def _known_provider(rows: Rows, id_: str) -> None:
    if await rows.provider(id_) is None:
        raise Problem(
            400,
            "provider_not_found",
            f"There is no provider {id_!r}. GET /admin/providers lists them.",
            param="provider_id",
        )


def _not_found() -> Problem:
    return Problem(
        404,
        "model_not_found",
        "There is no such model alias. GET /admin/models lists them.",
    )


def _now() -> datetime:
    return datetime.now(UTC)
