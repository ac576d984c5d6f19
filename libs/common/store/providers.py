"""Providers and model aliases in SQL, by the same statements in either database. Of
keys only the sealed form comes here."""

import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from libs.common.contracts.events import Row
from libs.common.providers.registry import Registry, registry_of
from libs.common.store.rows import iso, storable

# Runs one named statement in a transaction of its own (`Store.fetch`).
Fetch = Callable[[str, Mapping[str, Any]], Awaitable[list[Row]]]


class RegistryRows:
    """Rows by SQL column name. Raises `StoreAway`."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    async def registry(self) -> Registry:
        """All of it. Aliases first: one whose provider went meanwhile leads nowhere
        for a moment, rather than being lost."""
        models = await self.models()
        return registry_of(await self.providers(), models)

    async def providers(self) -> list[Row]:
        return [_shown(row) for row in await self._fetch("providers", {"id": None})]

    async def provider(self, id_: str) -> Row | None:
        return await self._one("providers", id_)

    async def add_provider(self, fields: Mapping[str, Any], at: datetime) -> Row | None:
        """None when the id is taken."""
        return _first(await self._fetch("add_provider", {**fields, "at": iso(at)}))

    async def change_provider(
        self, id_: str, fields: Mapping[str, Any], at: datetime
    ) -> Row | None:
        """Set `fields`; None when there is no such provider."""
        encoded = json.dumps(dict(fields))
        return await self._one("change_provider", id_, fields=encoded, at=iso(at))

    async def reseal(self, id_: str, old: str, new: str) -> bool:
        """Replace a provider's sealed keys, if they still are `old`."""
        values = {"id": id_, "old": old, "new": new}
        return bool(await self._fetch("reseal_provider", values))

    async def delete_provider(self, id_: str) -> bool:
        """False when there is none, or aliases lead to it."""
        return bool(await self._fetch("delete_provider", {"id": id_}))

    async def models(self) -> list[Row]:
        return [_shown(row) for row in await self._fetch("models", {"id": None})]

    async def model(self, alias: str) -> Row | None:
        return await self._one("models", alias)

    async def add_model(self, fields: Mapping[str, Any], at: datetime) -> Row | None:
        """None when the alias is taken, or its provider is not there."""
        return _first(await self._fetch("add_model", {**fields, "at": iso(at)}))

    async def change_model(
        self, alias: str, fields: Mapping[str, Any], at: datetime
    ) -> Row | None:
        """Set `fields`; None when there is no such alias."""
        encoded = json.dumps(dict(fields))
        return await self._one("change_model", alias, fields=encoded, at=iso(at))

    async def delete_model(self, alias: str) -> bool:
        return bool(await self._fetch("delete_model", {"id": alias}))

    async def _one(self, name: str, id_: str, **values: Any) -> Row | None:
        if not storable(id_):
            return None
        return _first(await self._fetch(name, {"id": id_, **values}))


def _first(rows: list[Row]) -> Row | None:
    return _shown(rows[0]) if rows else None


def _shown(row: Row) -> Row:
    """As Postgres has it: SQLite keeps booleans as numbers."""
    return {**row, "enabled": bool(row["enabled"])}
