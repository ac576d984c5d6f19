"""`/admin/tokens`: mint, list and revoke admin tokens with names. A token is in the
response that minted it and nowhere else. `/admin/whoami`: whose token it is.
`/admin/audit`: who changed what."""

from datetime import UTC, datetime
from typing import Any, Protocol, Self

from libs.common.admin_token import new_token, token_hash
from libs.common.contracts.events import Row
from libs.common.store.admin.audit_log import AuditQuery
from libs.common.store.interface import Actor, Page
from services.router.admin.schemas.access import (
    AuditFilter,
    AuditPage,
    MintedToken,
    TokenAsk,
    TokenHolder,
    TokenRow,
    TokensList,
)
from services.router.api.operation import Operation
from services.router.errors import Problem, found


class Rows(Protocol):
    """The part of the store used here. Raises `StoreAway`."""

    def by(self, actor: Actor) -> Self: ...

    async def add(
        self, name: str, role: str, token_hash: str, at: datetime
    ) -> Row | None: ...

    async def all(self) -> list[Row]: ...

    async def delete(self, name: str) -> Row | None: ...


class Check(Protocol):
    """This router's check of tokens. Others know of a change within about a second."""

    def changed(self) -> None: ...


class _Tokens:
    def __init__(self, rows: Rows, check: Check) -> None:
        self._rows = rows
        self._check = check


class AdminTokens(_Tokens):
    @Operation(returns=TokensList, problems=(503,))
    async def on_get(self) -> dict[str, Any]:
        """Admin tokens with names."""
        return {"data": await self._rows.all(), "next_cursor": None}

    @Operation(returns=MintedToken, status=201, problems=(409, 503), secret=True)
    async def on_post(self, body: TokenAsk, actor: Actor) -> Row:
        """Mint an admin token. Only this response contains it."""
        token, now = new_token(), datetime.now(UTC)
        rows = self._rows.by(actor)
        hashed = token_hash(token.encode())
        row = await rows.add(body.name, body.role, hashed, now)
        if row is None:
            raise Problem(
                409,
                "admin_token_exists",
                f"There is an admin token {body.name!r}. Choose another name, or "
                "revoke it first.",
                param="name",
            )
        self._check.changed()
        return {**row, "token": token}


class OneAdminToken(_Tokens):
    @Operation(returns=TokenRow, problems=(404, 503))
    async def on_delete(self, name: str, actor: Actor) -> Row:
        """Revoke an admin token; effective within about a second."""
        row = await self._rows.by(actor).delete(name)
        deleted = found("admin_token_not_found", "/admin/tokens", row)
        self._check.changed()
        return deleted


class WhoAmI:
    @Operation(returns=TokenHolder)
    async def on_get(self, actor: Actor) -> dict[str, str]:
        """Name and role of the admin token that the request was sent with."""
        return {"name": actor.name, "role": actor.role}


class Log(Protocol):
    """Raises `BadQuery`, `StoreAway`."""

    async def page(self, query: AuditQuery) -> Page: ...


class Audit:
    def __init__(self, log: Log) -> None:
        self._log = log

    @Operation(returns=AuditPage, problems=(503,))
    async def on_get(self, query: AuditFilter) -> dict[str, Any]:
        """Changes through the admin API, newest first."""
        page = await self._log.page(AuditQuery(**dict(query)))
        return {"data": list(page.rows), "next_cursor": page.next_cursor}
