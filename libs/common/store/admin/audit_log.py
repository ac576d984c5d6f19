"""Changes of the admin API in SQL: made with the name of who makes them, and listed."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from libs.common.contracts.events import Row
from libs.common.store.interface import (
    AFTER_EVERY_TIME,
    Actor,
    BadQuery,
    Cursor,
    Fetch,
    Page,
)
from libs.common.store.rows import storable


class AuditedRows:
    """Rows of objects that the admin API changes."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    def by(self, actor: Actor) -> Self:
        """The same rows; changes through them are recorded in `audit_log`, in the
        transaction of the change."""
        return type(self)(partial(self._fetch, by=actor))

    async def _first(self, name: str, values: Mapping[str, Any]) -> Row | None:
        rows = await self._fetch(name, values)
        return rows[0] if rows else None

    async def _one(self, name: str, id_: str, **values: Any) -> Row | None:
        """The row of the object `id_`, by the statement `name`."""
        if not storable(id_):
            return None
        return await self._first(name, {"id": id_, **values})


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which rows of `audit_log`; None for all. Raises `BadQuery` if invalid."""

    limit: int = 100
    cursor: str | None = None
    actor: str | None = None
    object_type: str | None = None
    object_id: str | None = None

    def __post_init__(self) -> None:
        for name in ("actor", "object_type", "object_id"):
            if not storable(getattr(self, name) or ""):
                raise BadQuery(f"{name}: contains a character that no stored value has")


class AuditLog:
    """Methods raise `StoreAway`."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    async def page(self, query: AuditQuery) -> Page:
        """Return a page of changes, newest first. Raises `BadQuery`."""
        cursor = Cursor.decode(query.cursor) if query.cursor else None
        values = {
            "actor": query.actor,
            "object_type": query.object_type,
            "object_id": query.object_id,
            "before_at": cursor.at if cursor else AFTER_EVERY_TIME,
            "before_id": cursor.id if cursor else "",
            "rows": query.limit + 1,
        }
        rows = await self._fetch("audit_log", values)
        return Page.cut(rows, query.limit)
