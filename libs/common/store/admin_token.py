"""The hash of the admin token in SQL."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from libs.common.contracts.events import Row
from libs.common.store.rows import iso

# Runs one named statement in its own transaction (`Store.fetch`).
Fetch = Callable[[str, Mapping[str, Any]], Awaitable[list[Row]]]


class AdminTokenRow:
    """Methods raise `StoreAway`, also if the schema does not have the table yet."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    async def get(self) -> str | None:
        """Return the hash of the current token."""
        rows = await self._fetch("admin_token", {})
        return rows[0]["token_hash"] if rows else None

    async def add(self, token_hash: str, at: datetime) -> bool:
        """Store the first token. Return False if there is one already."""
        return bool(await self._fetch("add_admin_token", _values(token_hash, at)))

    async def put(self, token_hash: str, at: datetime) -> None:
        """Store a token, replacing any other."""
        await self._fetch("put_admin_token", _values(token_hash, at))


def _values(token_hash: str, at: datetime) -> dict[str, Any]:
    return {"token_hash": token_hash, "created_at": iso(at)}
