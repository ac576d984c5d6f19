"""The first admin token, how it is created, and the tokens with names."""

import asyncio
import hmac
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import structlog

from libs.common.admin_token import login_link, new_token, read_file, token_hash
from libs.common.errors import ProxyError
from services.router.admin.auth.access import Holder
from services.router.errors import Problem

log = structlog.get_logger()

FRESH_S = 1.0  # between reads of SQL
PATIENCE_S = 2.0


class FixedToken:
    """`PROXY_ADMIN_TOKEN`."""

    def __init__(self, token: str) -> None:
        self._hash = token_hash(token.encode())

    async def accepts(self, given: bytes) -> bool:
        return _equal(given, self._hash)


class Rows(Protocol):
    """The token's hash in SQL. Raises `ProxyError` if SQL fails."""

    async def get(self) -> str | None: ...

    async def add(self, token_hash: str, at: datetime) -> bool: ...


class KeptToken:
    """The token that `up` keeps in the data directory, or one that the first router
    creates: SQL then stores its hash, and that router's log has the only copy."""

    def __init__(self, rows: Rows, data_dir: Path, origin: str) -> None:
        """`origin`: the gateway's, for the login link."""
        self._rows = rows
        self._data_dir = data_dir
        self._origin = origin
        # Becomes the token unless another router was faster.
        self._offered = new_token()
        self._shown = False
        self._hash: str | None = None
        self._looked_at = -math.inf
        self._turn = asyncio.Lock()
        self._said = ""

    async def accepts(self, given: bytes) -> bool:
        return _equal(given, await self._current())

    async def make_first(self) -> None:
        """Returns as soon as a token exists."""
        while True:
            if read_file(self._data_dir) or await self._stored():
                return
            await asyncio.sleep(FRESH_S)

    async def _current(self) -> str:
        kept = read_file(self._data_dir)
        if kept is not None:
            return token_hash(kept.encode())
        stored = await self._stored()
        if stored is None:
            raise _unknown()
        return stored

    async def _stored(self) -> str | None:
        """The hash in SQL. The last known one remains valid while SQL is unreachable,
        when the admin API is needed most."""
        clock = asyncio.get_running_loop().time
        async with self._turn:
            if clock() - self._looked_at > FRESH_S:
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        self._hash = await self._look()
                    self._said = ""
                except (ProxyError, TimeoutError) as error:
                    self._fail(str(error) or f"no answer within {PATIENCE_S} s")
                self._looked_at = clock()
        return self._hash

    async def _look(self) -> str | None:
        offered = token_hash(self._offered.encode())
        found = await self._rows.get()
        if found is None:
            await self._rows.add(offered, datetime.now(UTC))
            found = await self._rows.get()
        # Also if the response to an earlier `add` was lost.
        if found == offered and not self._shown:
            self._shown = True
            log.warning(
                "admin token created: this link logs in with it and is logged only "
                "once. Replace the address if the gateway has another one",
                action="admin_token_made",
                link=login_link(self._origin, self._offered),
            )
        return found

    def _fail(self, cause: str) -> None:
        if cause != self._said:
            log.warning(
                "admin token cannot be read", action="no_admin_token", cause=cause
            )
        self._said = cause


class NamedRows(Protocol):
    """Tokens with names in SQL. Raises `ProxyError` if SQL fails."""

    async def holders(self) -> Mapping[str, tuple[str, str]]: ...


class NamedTokens:
    """The tokens with names. Those last read remain valid while SQL is unreachable."""

    def __init__(self, rows: NamedRows) -> None:
        self._rows = rows
        self._holders: Mapping[str, tuple[str, str]] | None = None
        self._looked_at = -math.inf
        self._turn = asyncio.Lock()

    async def holder(self, given: bytes) -> Holder | None:
        async with self._turn:
            clock = asyncio.get_running_loop().time
            if clock() - self._looked_at > FRESH_S:
                self._looked_at = clock()  # a change during the read is not missed
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        self._holders = await self._rows.holders()
                except (ProxyError, TimeoutError):
                    # Those that waited for this read do not wait for another.
                    self._looked_at = clock()
        if self._holders is None:
            raise _unknown()
        found = self._holders.get(token_hash(given))
        return Holder(*found) if found else None

    def changed(self) -> None:
        """Has the next request read them again."""
        self._looked_at = -math.inf


def _unknown() -> Problem:
    return Problem(
        503,
        "admin_token_unknown",
        "The database, which stores the hashes of admin tokens, does not respond. "
        "Check that it is running and migrated, or use PROXY_ADMIN_TOKEN.",
    )


def _equal(given: bytes, wanted: str) -> bool:
    """In constant time."""
    return hmac.compare_digest(token_hash(given), wanted)
