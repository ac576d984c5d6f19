"""`GET /admin/sessions`, `/admin/requests`, `/admin/decisions`: rows by SQL column
name, without bodies. And one request with its decisions and captured bodies."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from libs.common.contracts.events import Row
from libs.common.contracts.prices import NANOS
from libs.common.store.interface import HistoryQuery, Page, Table
from services.router.admin.captured_bodies import shown
from services.router.admin.reasons import explained
from services.router.admin.schemas.history import (
    DecisionsFilter,
    DecisionsPage,
    HistoryFilter,
    RequestsFilter,
    RequestsPage,
    RequestView,
    RequestWithDecisions,
    SessionsPage,
)
from services.router.admin.timeline import timeline
from services.router.api.operation import Operation
from services.router.errors import Problem


class Rows(Protocol):
    """The part of the store used here. Raises `StoreAway`."""

    async def history(self, query: HistoryQuery) -> Page: ...

    async def request(self, id: str) -> Row | None: ...  # noqa: A002 - its column

    async def payloads(self, request: Row) -> list[Row]: ...

    async def fetch(self, name: str, values: Mapping[str, Any]) -> list[Row]: ...


class _History:
    def __init__(self, store: Rows) -> None:
        self._store = store

    async def _page(self, table: Table, wanted: HistoryFilter) -> dict[str, Any]:
        """Raises `BadQuery`."""
        page = await self._store.history(HistoryQuery(table, **dict(wanted)))
        return {"data": list(page.rows), "next_cursor": page.next_cursor}


class Sessions(_History):
    @Operation(returns=SessionsPage, problems=(503,))
    async def on_get(self, query: HistoryFilter) -> dict[str, Any]:
        """Sessions, last seen first."""
        return await self._page("sessions", query)


class Requests(_History):
    @Operation(returns=RequestsPage, problems=(503,))
    async def on_get(self, query: RequestsFilter) -> dict[str, Any]:
        """Requests, newest first. Metadata, never bodies."""
        return await self._page("requests", query)


class Decisions(_History):
    @Operation(returns=DecisionsPage, problems=(503,))
    async def on_get(self, query: DecisionsFilter) -> dict[str, Any]:
        """Routing decisions, newest first."""
        page = await self._page("decisions", query)
        return {**page, "data": explained(page["data"])}


class OneRequest:
    def __init__(self, store: Rows) -> None:
        self._store = store

    @Operation(returns=RequestWithDecisions, problems=(404, 503))
    async def on_get(
        self,
        id: str,  # noqa: A002 - as OpenAPI names it
        query: RequestView,
    ) -> bytes | Row:
        """One request with its decisions and captured bodies."""
        row = await self._store.request(id)
        if row is None:
            raise Problem(
                404,
                "request_not_found",
                "No request with this id is stored. It is x-proxy-request-id of the "
                "response, and is stored within seconds after the request ended.",
            )
        payloads = await self._store.payloads(row) if query.bodies else ()
        decisions = row["decisions"]
        row = {
            **row,
            "cost_usd": await self._cost(row),
            "timeline": timeline(row, decisions),
            "decisions": explained(decisions),
        }
        if not query.bodies:
            return row
        # In a thread: up to two bodies of 64 MiB are decompressed.
        return await asyncio.to_thread(_with_bodies, row, payloads)

    async def _cost(self, row: Row) -> float | None:
        if row["cost_nanos"] is not None:
            return float(row["cost_nanos"] / NANOS)
        if not row["total_tokens"]:
            return None
        priced = await self._store.fetch("cost_of_request", row)
        return priced[0]["cost"] if priced else None


def _with_bodies(row: Row, payloads: Sequence[Row]) -> bytes:
    return json.dumps({**row, "bodies": shown(payloads)}).encode()
