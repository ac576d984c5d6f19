"""`/admin/keys`: mint, list, change and revoke proxy keys. A secret is in the response
that minted it and nowhere else."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import uuid_utils

from libs.common.contracts.events import Row
from libs.common.proxy_keys import PREFIX_CHARS, new_secret, secret_hash
from libs.common.store.interface import Cursor, Page
from libs.common.store.proxy_keys import NewKey
from services.router.admin.schemas.keys import (
    KeyChange,
    MintAsk,
    MintedKey,
    ProxyKeyRow,
    ProxyKeysPage,
)
from services.router.admin.schemas.pages import PageFilter
from services.router.api.operation import Operation
from services.router.errors import Problem, not_found


class Rows(Protocol):
    """The part of the store used here. Raises `StoreAway`."""

    async def add(self, key: NewKey) -> Row: ...

    async def page(self, limit: int, cursor: Cursor | None) -> Page: ...

    async def get(self, id_: str) -> Row | None: ...

    async def change(self, id_: str, fields: Mapping[str, Any]) -> Row | None: ...

    async def revoke(self, id_: str, at: datetime) -> Row | None: ...


class Publisher(Protocol):
    """Publishes a changed key to the gateways, at once or when Redis is back."""

    async def changed(self, id_: str) -> bool: ...


class _Keys:
    def __init__(self, rows: Rows, publisher: Publisher) -> None:
        self._rows = rows
        self._publisher = publisher


class ProxyKeys(_Keys):
    @Operation(returns=ProxyKeysPage, problems=(503,))
    async def on_get(self, query: PageFilter) -> dict[str, Any]:
        """Proxy keys, newest first, including revoked ones."""
        cursor = Cursor.decode(query.cursor) if query.cursor else None
        page = await self._rows.page(query.limit, cursor)
        return {"data": list(page.rows), "next_cursor": page.next_cursor}

    @Operation(returns=MintedKey, status=201, problems=(503,))
    async def on_post(self, body: MintAsk) -> dict[str, Any]:
        """Mint a proxy key. Only this response contains its secret."""
        secret = new_secret()
        key = NewKey(
            id=f"key_{uuid_utils.uuid7().hex}",
            prefix=secret[:PREFIX_CHARS],
            secret_hash=secret_hash(secret.encode()),
            created_at=datetime.now(UTC),
            **dict(body),
        )
        row = await self._rows.add(key)
        await self._publisher.changed(key.id)
        return {**row, "secret": secret}


class OneProxyKey(_Keys):
    @Operation(returns=ProxyKeyRow, problems=(404, 503))
    async def on_get(self, key_id: str) -> Row:
        """One proxy key."""
        return await self._known(key_id)

    @Operation(returns=ProxyKeyRow, problems=(404, 409, 503))
    async def on_patch(self, key_id: str, body: KeyChange) -> Row:
        """Change a proxy key; effective within a second."""
        fields = body.model_dump(exclude_unset=True)
        row = await self._rows.change(key_id, fields)
        if row is None:
            await self._known(key_id)
            raise Problem(
                409,
                "proxy_key_revoked",
                "This proxy key was revoked, which cannot be undone. Mint another.",
            )
        await self._publisher.changed(key_id)
        return row

    @Operation(returns=ProxyKeyRow, problems=(404, 503))
    async def on_delete(self, key_id: str) -> Row:
        """Revoke a proxy key permanently; effective within a second."""
        row = await self._rows.revoke(key_id, datetime.now(UTC))
        if row is None:
            raise not_found("proxy_key_not_found", "/admin/keys")
        await self._publisher.changed(key_id)
        return row

    async def _known(self, key_id: str) -> Row:
        row = await self._rows.get(key_id)
        if row is None:
            raise not_found("proxy_key_not_found", "/admin/keys")
        return row
