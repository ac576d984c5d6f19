"""Which admin token is in force, and its first one."""

import asyncio
import hmac
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import structlog

from libs.common.admin_token import login_link, new_token, read_file, token_hash
from libs.common.errors import ProxyError
from services.router.errors import Problem

log = structlog.get_logger()

FRESH_S = 1.0  # between two looks at SQL
PATIENCE_S = 2.0


class FixedToken:
    """`PROXY_ADMIN_TOKEN`."""

    def __init__(self, token: str) -> None:
        self._hash = token_hash(token.encode())

    async def accepts(self, given: bytes) -> bool:
        return _equal(given, self._hash)


class Rows(Protocol):
    """The hash in SQL; raises `ProxyError` when it cannot be used."""

    async def get(self) -> str | None: ...

    async def add(self, token_hash: str, at: datetime) -> bool: ...


class KeptToken:
    """The token that `up` keeps in the data directory, else one that the first router
    makes. Of that SQL has the hash, and this router's log the only copy."""

    def __init__(self, rows: Rows, data_dir: Path, origin: str) -> None:
        """`origin`: the gateway's, as the link has it."""
        self._rows = rows
        self._data_dir = data_dir
        self._origin = origin
        self._offered = new_token()  # in force if no router was faster
        self._shown = False
        self._hash: str | None = None
        self._looked_at = -math.inf
        self._turn = asyncio.Lock()
        self._said = ""

    async def accepts(self, given: bytes) -> bool:
        return _equal(given, await self._in_force())

    async def make_first(self) -> None:
        """Returns once there is a token."""
        while True:
            if read_file(self._data_dir) or await self._stored():
                return
            await asyncio.sleep(FRESH_S)

    async def _in_force(self) -> str:
        kept = read_file(self._data_dir)
        if kept is not None:
            return token_hash(kept.encode())
        stored = await self._stored()
        if stored is None:
            raise Problem(
                503,
                "admin_token_unknown",
                "The database, which knows the admin token, does not answer. See that "
                "it runs and was migrated, or set PROXY_ADMIN_TOKEN.",
            )
        return stored

    async def _stored(self) -> str | None:
        """The hash as SQL has it. What was known before stays in force while SQL is
        away: then the admin API is needed most."""
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
        # Also when the answer to an `add` before was lost.
        if found == offered and not self._shown:
            self._shown = True
            log.warning(
                "an admin token was made: this link logs in with it, and is shown this "
                "once. Where the gateway has another address, put that in its place",
                action="admin_token_made",
                link=login_link(self._origin, self._offered),
            )
        return found

    def _fail(self, cause: str) -> None:
        if cause != self._said:
            log.warning(
                "cannot read the admin token", action="no_admin_token", cause=cause
            )
        self._said = cause


def _equal(given: bytes, wanted: str) -> bool:
    """In constant time."""
    return hmac.compare_digest(token_hash(given), wanted)
