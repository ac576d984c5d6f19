"""`GET /admin/sessions|requests|decisions`: metadata only, never bodies, rows by
SQL column name. And one request with its decisions and captured bodies."""

import asyncio
import json
from collections.abc import Sequence
from typing import Protocol

from falcon.asgi import Request, Response

from libs.common.contracts.events import Row
from libs.common.store.interface import LIMIT_MAX, BadQuery, HistoryQuery, Page, Table
from services.router.admin.captured_bodies import shown
from services.router.errors import Problem


class Rows(Protocol):
    """What of the store is asked for here; raises `StoreAway`."""

    async def history(self, query: HistoryQuery) -> Page: ...

    async def request(self, id: str) -> Row | None: ...  # noqa: A002 - its column

    async def payloads(self, request: Row) -> list[Row]: ...


class History:
    """The newest rows of one table; `next_cursor` continues with older ones."""

    def __init__(self, store: Rows, table: Table) -> None:
        self._store = store
        self._table = table

    async def on_get(self, req: Request, resp: Response) -> None:
        page = await self._store.history(
            HistoryQuery(
                table=self._table,
                limit=asked_limit(req.get_param("limit")),
                session_id=_given(req, "session_id"),
                resource_id=_given(req, "resource_id"),
                request_id=_given(req, "request_id"),
                cursor=_given(req, "cursor"),
            )
        )
        resp.media = {"data": list(page.rows), "next_cursor": page.next_cursor}


class OneRequest:
    """One request's row with its decisions and, if captured, its bodies."""

    def __init__(self, store: Rows) -> None:
        self._store = store

    async def on_get(self, req: Request, resp: Response, request_id: str) -> None:
        with_bodies = _wanted(req.get_param("bodies"))
        row = await self._store.request(request_id)
        if row is None:
            raise Problem(
                404,
                "request_not_found",
                "No such request is stored (yet): its id is the x-proxy-request-id "
                "header of the answer.",
            )
        if not with_bodies:
            resp.media = row
            return
        payloads = await self._store.payloads(row)
        # Megabytes, maybe: others are not to wait for them.
        resp.data = await asyncio.to_thread(_with_bodies, row, payloads)
        resp.content_type = "application/json"


def _with_bodies(row: Row, payloads: Sequence[Row]) -> bytes:
    return json.dumps({**row, "bodies": shown(payloads)}).encode()


def _wanted(given: str | None) -> bool:
    if given not in (None, "", "true", "false"):
        raise BadQuery("bodies: true or false")
    return given != "false"


def asked_limit(given: str | None) -> int:
    """`?limit=`; raises `BadQuery`."""
    if not given:
        return 100
    digits = given.isascii() and given.isdigit()
    if not digits or not 1 <= int(given[:9]) <= LIMIT_MAX:
        raise BadQuery(f"limit: a whole number between 1 and {LIMIT_MAX}")
    return int(given[:9])


def _given(req: Request, name: str) -> str | None:
    """An empty filter is none: forms send their empty fields, too."""
    return req.get_param(name) or None
