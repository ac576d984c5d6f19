"""Providers and model aliases in SQL, with the same statements for both databases. Keys
are stored in encrypted form only."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, overload

from libs.common.contracts.events import Row
from libs.common.providers.registry import Registry, registry_of, targets_of
from libs.common.store.admin.audit_log import AuditedRows
from libs.common.store.prices import read_price_list
from libs.common.store.rows import iso


class RegistryRows(AuditedRows):
    """Returns rows by SQL column name. Methods raise `StoreAway`."""

    async def registry(self) -> Registry:
        """Return the whole registry, and the prices. Reads aliases first: if a provider
        is deleted in between, its alias has no resources until the next read."""
        models = await self.models()
        prices = await read_price_list(self._fetch)
        return registry_of(await self.providers(), models, prices)

    async def providers(self) -> list[Row]:
        return await self._fetch("providers", {"id": None})

    async def provider(self, id_: str) -> Row | None:
        return await self._one("providers", id_)

    async def add_provider(self, fields: Mapping[str, Any], at: datetime) -> Row | None:
        """Return the new row, or None if the id exists."""
        return await self._first("add_provider", {**fields, "at": iso(at)})

    async def change_provider(
        self, id_: str, fields: Mapping[str, Any], at: datetime
    ) -> Row | None:
        """Set `fields`. Return the row, or None if the provider does not exist."""
        encoded = json.dumps(dict(fields))
        return await self._one("change_provider", id_, fields=encoded, at=iso(at))

    async def reseal(self, id_: str, old: str, new: str) -> bool:
        """Replace the encrypted keys of a provider if they are still `old`."""
        values = {"id": id_, "old": old, "new": new}
        return bool(await self._fetch("reseal_provider", values))

    async def delete_provider(self, id_: str) -> bool:
        """Return False if it does not exist or aliases refer to it."""
        return await self._one("delete_provider", id_) is not None

    async def models(self) -> list[Row]:
        return [_model(row) for row in await self._fetch("models", {"id": None})]

    async def model(self, alias: str) -> Row | None:
        return _model(await self._one("models", alias))

    async def add_model(self, fields: Mapping[str, Any], at: datetime) -> Row | None:
        """Return the new row, or None if the alias exists or its provider does not.
        `targets`: None for the one of `provider_id` and `upstream_id`."""
        targets = fields.get("targets")
        encoded = None if targets is None else json.dumps(targets)
        values = {**fields, "targets": encoded, "at": iso(at)}
        return _model(await self._first("add_model", values))

    async def change_model(
        self, alias: str, fields: Mapping[str, Any], at: datetime
    ) -> Row | None:
        """Set `fields`. Return the row, or None if the alias does not exist."""
        encoded = json.dumps(dict(fields))
        row = await self._one("change_model", alias, fields=encoded, at=iso(at))
        return _model(row)

    async def delete_model(self, alias: str) -> bool:
        return await self._one("delete_model", alias) is not None


@overload
def _model(row: Row) -> Row: ...


@overload
def _model(row: None) -> None: ...


def _model(row: Row | None) -> Row | None:
    """A row of `models` with all of its targets."""
    if row is None:
        return None
    return {**row, "targets": targets_of(row, row["targets"])}
