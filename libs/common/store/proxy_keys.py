"""Proxy keys in SQL, with the same statements for both databases. Only the hash of a
secret is stored; it is returned for the key table in Redis only."""

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.common.contracts.events import RequestEvent, Row
from libs.common.proxy_keys import Principal
from libs.common.store.interface import Cursor, Page
from libs.common.store.rows import instant, iso, milliseconds, storable

# Runs one named statement in its own transaction (`Store.fetch`).
Fetch = Callable[[str, Mapping[str, Any]], Awaitable[list[Row]]]

AFTER_EVERY_TIME = "9999-12-31T23:59:59.999Z"


@dataclass(frozen=True, slots=True)
class NewKey:
    """The columns of a new key."""

    id: str
    name: str
    prefix: str
    secret_hash: str
    pool_id: str | None
    pools: tuple[str, ...]
    expires_at: datetime | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    created_at: datetime
    team_id: str | None = None


class ProxyKeyRows:
    """Returns rows by SQL column name, without the hash. Methods raise `StoreAway`."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    async def add(self, key: NewKey) -> Row:
        values = {name: _bound(getattr(key, name)) for name in key.__slots__}
        (row,) = await self._fetch("add_proxy_key", values)
        return _shown(row)

    async def page(self, limit: int, cursor: Cursor | None) -> Page:
        """Return a page of keys, newest first, including revoked keys."""
        values = {
            "before_at": cursor.at if cursor else AFTER_EVERY_TIME,
            "before_id": cursor.id if cursor else "",
            "rows": limit + 1,
        }
        rows = [_shown(row) for row in await self._fetch("proxy_keys", values)]
        if len(rows) <= limit:
            return Page(tuple(rows), None)
        last = rows[limit - 1]
        cursor = Cursor(last["created_at"], last["id"])
        return Page(tuple(rows[:limit]), cursor.encode())

    async def get(self, id_: str) -> Row | None:
        return await self._one("proxy_key", id_)

    async def change(self, id_: str, fields: Mapping[str, Any]) -> Row | None:
        """Set `fields`. Return the row, or None if the key is unknown or revoked."""
        encoded = json.dumps(dict(fields), default=_bound)
        return await self._one("change_proxy_key", id_, fields=encoded)

    async def revoke(self, id_: str, at: datetime) -> Row | None:
        """Revoke a key permanently. Idempotent; return None if the key is unknown."""
        return await self._one("revoke_proxy_key", id_, revoked_at=iso(at))

    async def records(self) -> dict[str, Principal]:
        """Return the principals of all keys that are not revoked, by secret hash."""
        rows = await self._fetch("proxy_key_records", {"id": None})
        return {row["secret_hash"]: _principal(row) for row in rows}

    async def record(self, id_: str) -> tuple[str, Principal | None] | None:
        """Return the secret hash and the principal of one key; the principal is None if
        the key is revoked."""
        rows = await self._fetch("proxy_key_records", {"id": id_})
        if not rows:
            return None
        revoked = rows[0]["revoked_at"] is not None
        return rows[0]["secret_hash"], None if revoked else _principal(rows[0])

    async def _one(self, name: str, id_: str, **values: Any) -> Row | None:
        if not storable(id_):
            return None
        rows = await self._fetch(name, {"id": id_, **values})
        return _shown(rows[0]) if rows else None


def uses(requests: Iterable[RequestEvent]) -> list[Row]:
    """Return the time of last use for each key in a batch of requests."""
    last: dict[str, int] = {}
    for request in requests:
        if request.proxy_key_id is not None:
            before = last.get(request.proxy_key_id, 0)
            last[request.proxy_key_id] = max(before, request.created_at_ms)
    return [
        {"id": id_, "last_used_at": instant(ms)} for id_, ms in sorted(last.items())
    ]


def _bound(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    return json.dumps(value) if isinstance(value, tuple) else value


def _shown(row: Row) -> Row:
    """Convert lists and booleans, which SQLite stores as text and numbers."""
    return {**row, "pools": _pools(row), "enabled": bool(row["enabled"])}


def _pools(row: Row) -> list[str]:
    pools = row["pools"]
    return list(json.loads(pools) if isinstance(pools, str) else pools)


def _principal(row: Row) -> Principal:
    expires = row["expires_at"]
    return Principal(
        id=row["id"],
        pool_id=row["pool_id"],
        pools=tuple(_pools(row)),
        expires_at_ms=expires and milliseconds(datetime.fromisoformat(expires)),
        requests_per_minute=row["requests_per_minute"],
        tokens_per_minute=row["tokens_per_minute"],
        enabled=bool(row["enabled"]),
        team_id=row["team_id"],
    )
