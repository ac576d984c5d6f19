"""`POST /internal/owners`: which accounts own these ids, and which one serves this
session, according to SQL. Gateways call it for ids that Redis does not know. They hold
no admin token, so the path is not under /admin; they do not forward /internal, so
clients cannot reach it."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any, Protocol

from pydantic import Field

from libs.common.contracts.catalogue import Published
from libs.common.contracts.events import ID_CHARS_MAX
from libs.common.errors import StoreAway
from libs.common.routing.types import Owner
from services.router.api.operation import Operation

IDS_MAX = 640  # more than a gateway sends at once
# In JSON a character takes up to twelve bytes (a pair of \uXXXX).
BODY_BYTES_MAX = (IDS_MAX + 1) * (ID_CHARS_MAX * 12 + 100)
PATIENCE_S = 1.5  # a client's request waits; its gateway gives up after 2 s
# An answer of another shard is in SQL within about a second.
LOOK_AGAIN_S = 0.3
LATEST_S = 1.8
# Ids of requests, of which clients make none themselves, unlike those of items.
OF_REQUESTS = ("resp_", "conv_")

Id = Annotated[str, Field(max_length=ID_CHARS_MAX)]
_HINT = (
    f'Send {{"ids": [...], "session_id": ...}} with up to {IDS_MAX} ids of up to '
    f"{ID_CHARS_MAX} characters."
)


class Lookup(Published):
    """Unknown fields are ignored, so newer gateways may send more."""

    ids: tuple[Id, ...] = Field(default=(), max_length=IDS_MAX)
    session_id: Id | None = None
    tenant: Id = ""  # the session's


class Ownership(Protocol):
    """The part of the store used here. Raises `StoreAway`."""

    async def owners(self, ids: Sequence[str]) -> dict[str, Owner]: ...

    async def session_owner(
        self, session_id: str, tenant: str = ""
    ) -> Owner | None: ...


class Owners:
    """Ids without an owner are left out of the response."""

    def __init__(
        self, store: Ownership, has_others: Callable[[], bool] = lambda: False
    ) -> None:
        """`has_others`: whether there are other shards, whose ids are not in the Redis
        that gateways asked before."""
        self._store = store
        self._has_others = has_others

    @Operation(largest_body=BODY_BYTES_MAX, hint=_HINT)
    async def on_post(self, body: Lookup) -> dict[str, Any]:
        """Look up the owners of ids and of a session."""
        latest = asyncio.get_running_loop().time() + LATEST_S
        try:
            async with asyncio.timeout(PATIENCE_S):
                ids, session = await self._find(body)
        except TimeoutError as error:
            raise StoreAway(f"no owners within {PATIENCE_S} s") from error
        if self._has_others():
            ids |= await self._look_again(set(body.ids) - ids.keys(), latest)
        return {
            "ids": {id_: asdict(owner) for id_, owner in ids.items()},
            "session": asdict(session) if session else None,
        }

    async def _look_again(self, ids: Iterable[str], latest: float) -> dict[str, Owner]:
        """Owners that were not there yet: a client may follow an answer of another
        shard at once."""
        left = {id_ for id_ in ids if id_.startswith(OF_REQUESTS)}
        found: dict[str, Owner] = {}
        with suppress(TimeoutError, StoreAway):
            async with asyncio.timeout_at(latest):
                while left:
                    await asyncio.sleep(LOOK_AGAIN_S)
                    found |= await self._store.owners(sorted(left))
                    left -= found.keys()
        return found

    async def _find(self, lookup: Lookup) -> tuple[dict[str, Owner], Owner | None]:
        """One query after the other, so that a lookup holds one connection."""
        ids = await self._store.owners(lookup.ids) if lookup.ids else {}
        if lookup.session_id is None:
            return ids, None
        return ids, await self._store.session_owner(lookup.session_id, lookup.tenant)
