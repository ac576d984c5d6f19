"""`/admin/keys`: mint, list, change and revoke proxy keys. A secret is in the response
that minted it and nowhere else."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol, Self

import uuid_utils

from libs.common.budgets import new_terms, split_terms
from libs.common.contracts.events import Row
from libs.common.proxy_keys import PREFIX_CHARS, new_secret, secret_hash
from libs.common.store.interface import Actor, Cursor, Page
from libs.common.store.proxy_keys import NewKey
from services.router.admin.schemas.keys import (
    KeyChange,
    MintAsk,
    MintedKey,
    ProxyKeyRow,
    ProxyKeysPage,
    stored_fields,
)
from services.router.admin.schemas.pages import PageFilter
from services.router.admin.spent import Spent
from services.router.api.operation import Operation
from services.router.errors import Problem, found

_found = partial(found, "proxy_key_not_found", "/admin/keys")


class Rows(Protocol):
    """The part of the store used here. Raises `StoreAway`."""

    def by(self, actor: Actor) -> Self: ...

    async def add(self, key: NewKey) -> Row: ...

    async def defaults(self, team_id: str) -> Row: ...

    async def page(self, limit: int, cursor: Cursor | None) -> Page: ...

    async def get(self, id_: str) -> Row | None: ...

    async def change(self, id_: str, fields: Mapping[str, Any]) -> Row | None: ...

    async def revoke(self, id_: str, at: datetime) -> Row | None: ...


class Publisher(Protocol):
    """Publishes a changed key to the gateways, at once or when Redis is back."""

    async def changed(self, id_: str) -> bool: ...


class _Keys:
    def __init__(self, rows: Rows, publisher: Publisher, spent: Spent) -> None:
        self._rows = rows
        self._publisher = publisher
        self._spent = spent


class ProxyKeys(_Keys):
    @Operation(returns=ProxyKeysPage, problems=(503,))
    async def on_get(self, query: PageFilter) -> dict[str, Any]:
        """Proxy keys, newest first, including revoked ones."""
        cursor = Cursor.decode(query.cursor) if query.cursor else None
        page = await self._rows.page(query.limit, cursor)
        rows = await self._spent.shown("key", page.rows)
        return {"data": rows, "next_cursor": page.next_cursor}

    @Operation(
        returns=MintedKey, status=201, problems=(503,), empty_body=b"{}", secret=True
    )
    async def on_post(self, body: MintAsk, actor: Actor) -> dict[str, Any]:
        """Mint a proxy key. Only this response contains its secret. Fields that are
        not sent have the defaults of its team, if that has some."""
        secret = new_secret()
        fields = stored_fields(body)
        if body.team_id is not None:
            defaults = await self._rows.defaults(body.team_id)
            unsaid = defaults.keys() - body.model_fields_set
            fields |= {name: defaults[name] for name in unsaid}
        fields, budget = split_terms(fields)
        key = NewKey(
            id=f"key_{uuid_utils.uuid7().hex}",
            prefix=secret[:PREFIX_CHARS],
            secret_hash=secret_hash(secret.encode()),
            created_at=datetime.now(UTC),
            budget=new_terms(budget),
            **fields,
        )
        row = await self._rows.by(actor).add(key)
        await self._publisher.changed(key.id)
        return {**row, "spend": None, "secret": secret}


class OneProxyKey(_Keys):
    @Operation(returns=ProxyKeyRow, problems=(404, 503))
    async def on_get(self, key_id: str) -> Row:
        """One proxy key."""
        return await self._spent.of("key", _found(await self._rows.get(key_id)))

    @Operation(returns=ProxyKeyRow, problems=(404, 409, 503))
    async def on_patch(self, key_id: str, body: KeyChange, actor: Actor) -> Row:
        """Change a proxy key; effective within a second."""
        fields = stored_fields(body, only_sent=True)
        row = await self._rows.by(actor).change(key_id, fields)
        if row is None:
            _found(await self._rows.get(key_id))
            raise Problem(
                409,
                "proxy_key_revoked",
                "This proxy key was revoked, which cannot be undone. Mint another.",
            )
        await self._publisher.changed(key_id)
        return await self._spent.of_changed("key", row)

    @Operation(returns=ProxyKeyRow, problems=(404, 409, 503))
    async def on_delete(self, key_id: str, actor: Actor) -> Row:
        """Revoke a proxy key permanently; effective within a second."""
        rows = self._rows.by(actor)
        row = _found(await rows.revoke(key_id, datetime.now(UTC)))
        await self._publisher.changed(key_id)
        return await self._spent.of_changed("key", row)
