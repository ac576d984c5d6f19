"""`GET /admin/sessions|requests|decisions`, and one request with its decisions.
Metadata only, never bodies; rows by SQL column name."""

from typing import Any

from falcon.asgi import Request, Response

from libs.common.store.port import LIMIT_MAX, BadQuery, HistoryQuery, Store, Table
from services.router.problems import Problem


class History:
    """The newest rows of one table; `next_cursor` continues with older ones."""

    def __init__(self, store: Store, table: Table) -> None:
        self._store = store
        self._table = table

    async def on_get(self, req: Request, resp: Response) -> None:
        page = await self._store.history(
            HistoryQuery(
                table=self._table,
                limit=_limit(req.get_param("limit")),
                session_id=req.get_param("session_id"),
                resource_id=req.get_param("resource_id"),
                request_id=req.get_param("request_id"),
                cursor=req.get_param("cursor"),
            )
        )
        resp.media = {"data": list(page.rows), "next_cursor": page.next_cursor}


class OneRequest:
    """One request's row with its decisions."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def on_get(self, _: Request, resp: Response, request_id: str) -> None:
        row: dict[str, Any] | None = await self._store.request(request_id)
        if row is None:
            raise Problem(
                404,
                "request_not_found",
                "No such request is stored (yet): its id is the x-proxy-request-id "
                "header of the answer.",
            )
        resp.media = row


def _limit(given: str | None) -> int:
    if given is None:
        return 100
    if not given.isascii() or not given.isdigit():
        raise BadQuery(f"limit: a whole number between 1 and {LIMIT_MAX}")
    return int(given[:9])
