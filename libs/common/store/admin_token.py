"""The admin token in SQL, where its hash alone is kept."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from libs.common.contracts.events import Row
from libs.common.store.rows import iso

# Runs one named statement in a transaction of its own (`Store.fetch`).
Fetch = Callable[[str, Mapping[str, Any]], Awaitable[list[Row]]]


class AdminTokenRow:
    """Raises `StoreAway`, also when the schema is older than the table."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    async def get(self) -> str | None:
        """The hash of the token in force."""
        rows = await self._fetch("admin_token", {})
        return rows[0]["token_hash"] if rows else None

    async def add(self, token_hash: str, at: datetime) -> bool:
        """False when there is a token already."""
        return bool(await self._fetch("add_admin_token", _values(token_hash, at)))

    async def put(self, token_hash: str, at: datetime) -> None:
        """Replace the token, if there is one."""
        await self._fetch("put_admin_token", _values(token_hash, at))


def _values(token_hash: str, at: datetime) -> dict[str, Any]:
    return {"token_hash": token_hash, "created_at": iso(at)}
