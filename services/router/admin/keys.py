"""`/admin/keys`: mint, list, change and revoke proxy keys. A secret is in the answer
that minted it and nowhere else."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import uuid_utils
from falcon.asgi import Request, Response
from pydantic import BaseModel, ValidationError

from libs.common.contracts.events import Row
from libs.common.proxy_keys import PREFIX_CHARS, new_secret, secret_hash
from libs.common.store.interface import Cursor, Page
from libs.common.store.proxy_keys import NewKey
from services.router.admin.history import asked_limit
from services.router.admin.schemas.shapes import KeyChange, MintAsk
from services.router.errors import Problem

LARGEST_BODY = 65_536

Asked = TypeVar("Asked", bound=BaseModel)


class Rows(Protocol):
    """What of the store is asked for here; raises `StoreAway`."""

    async def add(self, key: NewKey) -> Row: ...

    async def page(self, limit: int, cursor: Cursor | None) -> Page: ...

    async def get(self, id_: str) -> Row | None: ...

    async def change(self, id_: str, fields: Mapping[str, Any]) -> Row | None: ...

    async def revoke(self, id_: str, at: datetime) -> Row | None: ...


class Told(Protocol):
    """Who brings a change to the gateways."""

    async def changed(self, id_: str) -> bool: ...


class ProxyKeys:
    """All of them."""

    def __init__(self, rows: Rows, publisher: Told) -> None:
        self._rows = rows
        self._publisher = publisher

    async def on_get(self, req: Request, resp: Response) -> None:
        cursor = req.get_param("cursor") or None
        page = await self._rows.page(
            asked_limit(req.get_param("limit")),
            Cursor.decode(cursor) if cursor else None,
        )
        resp.media = {"data": list(page.rows), "next_cursor": page.next_cursor}

    async def on_post(self, req: Request, resp: Response) -> None:
        asked = await _asked(req, MintAsk)
        secret = new_secret()
        key = NewKey(
            id=f"key_{uuid_utils.uuid7().hex}",
            prefix=secret[:PREFIX_CHARS],
            secret_hash=secret_hash(secret.encode()),
            created_at=_now(),
            **dict(asked),
        )
        row = await self._rows.add(key)
        # Gateways know it when the answer leaves, or as soon as Redis is back.
        await self._publisher.changed(key.id)
        resp.status = 201
        resp.cache_control = ["no-store"]
        resp.media = {**row, "secret": secret}


class OneProxyKey:
    """One of them."""

    def __init__(self, rows: Rows, publisher: Told) -> None:
        self._rows = rows
        self._publisher = publisher

    async def on_get(self, _: Request, resp: Response, key_id: str) -> None:
        resp.media = await self._known(key_id)

    async def on_patch(self, req: Request, resp: Response, key_id: str) -> None:
        asked = await _asked(req, KeyChange)
        row = await self._rows.change(key_id, asked.model_dump(exclude_unset=True))
        if row is None:
            await self._known(key_id)
            raise Problem(
                409,
                "proxy_key_revoked",
                "This proxy key was revoked, which cannot be undone. Mint another.",
            )
        await self._publisher.changed(key_id)
        resp.media = row

    async def on_delete(self, _: Request, resp: Response, key_id: str) -> None:
        row = await self._rows.revoke(key_id, _now())
        if row is None:
            raise _not_found()
        await self._publisher.changed(key_id)
        resp.media = row

    async def _known(self, key_id: str) -> Row:
        row = await self._rows.get(key_id)
        if row is None:
            raise _not_found()
        return row


async def _asked(req: Request, model: type[Asked]) -> Asked:
    body = await req.stream.read(LARGEST_BODY + 1)
    if len(body) > LARGEST_BODY:
        raise _bad(None, f"the body has more than {LARGEST_BODY} bytes")
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _bad(".".join(map(str, first["loc"])) or None, first["msg"]) from None


def _bad(param: str | None, cause: str) -> Problem:
    where = f"{param}: " if param else ""
    return Problem(
        400,
        "invalid_request",
        f"{where}{cause}. The fields of a proxy key are described at /docs.",
        param=param,
    )


def _not_found() -> Problem:
    return Problem(
        404,
        "proxy_key_not_found",
        "There is no such proxy key. GET /admin/keys lists them by their ids.",
    )


def _now() -> datetime:
    return datetime.now(UTC)
