"""The hashes of admin tokens in SQL: of the first one if routers generated it, and of
those that have names."""

from datetime import datetime
from typing import Any

from libs.common.admin_token import DEFAULT
from libs.common.contracts.events import Row
from libs.common.store.admin.audit_log import AuditedRows
from libs.common.store.rows import iso


class AdminTokenRow(AuditedRows):
    """The first token. Methods raise `StoreAway`, also if the schema does not have the
    table yet."""

    async def get(self) -> str | None:
        """Return the hash of the current token."""
        row = await self._first("admin_token", {})
        return row["token_hash"] if row else None

    async def add(self, token_hash: str, at: datetime) -> bool:
        """Store the first token. Return False if there is one already."""
        return bool(await self._fetch("add_admin_token", _values(token_hash, at)))

    async def put(self, token_hash: str, at: datetime) -> None:
        """Store a token, replacing any other."""
        values = {"id": DEFAULT, **_values(token_hash, at)}
        await self._fetch("put_admin_token", values)


class NamedTokenRows(AuditedRows):
    """Tokens with names and roles, without their hashes. Methods raise `StoreAway`."""

    async def add(
        self, name: str, role: str, token_hash: str, at: datetime
    ) -> Row | None:
        """Return the new row, or None if there is a token with this name."""
        values = {"id": name, "role": role, **_values(token_hash, at)}
        return await self._first("add_named_token", values)

    async def all(self) -> list[Row]:
        """By name."""
        return await self._fetch("named_tokens", {})

    async def delete(self, name: str) -> Row | None:
        """Return the deleted row, or None if there is no such token."""
        return await self._one("delete_named_token", name)

    async def holders(self) -> dict[str, tuple[str, str]]:
        """Return name and role of each token, by its hash."""
        rows = await self._fetch("named_token_hashes", {})
        return {row["token_hash"]: (row["name"], row["role"]) for row in rows}


def _values(token_hash: str, at: datetime) -> dict[str, Any]:
    return {"token_hash": token_hash, "created_at": iso(at)}
