"""`POST /internal/owners`: who minted these ids, and who serves this session, as
SQL knows it. Gateways ask when Redis does not know. They hold no admin token, so
this is not under /admin; they forward none of it, so no client comes here."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Protocol

import msgspec
from falcon.asgi import Request, Response
from pydantic import Field, ValidationError

from libs.common.contracts.catalogue import Published
from libs.common.errors import StoreAway
from libs.common.routing.types import Owner
from libs.common.store.interface import ID_CHARS_MAX
from services.router.errors import Problem

IDS_MAX = 640  # more than a gateway asks for at once
# In JSON a character takes up to twelve bytes (a pair of \uXXXX).
BODY_BYTES_MAX = (IDS_MAX + 1) * (ID_CHARS_MAX * 12 + 100)
PATIENCE_S = 1.5  # a client's request waits; its gateway gives up after 2 s

Id = Annotated[str, Field(max_length=ID_CHARS_MAX)]


class Lookup(Published):
    """What a gateway wants to know, also a newer one that asks for more."""

    ids: tuple[Id, ...] = Field(default=(), max_length=IDS_MAX)
    session_id: Id | None = None
    tenant: Id = ""  # whose session


class Ownership(Protocol):
    """What of the store is asked for here; raises `StoreAway`."""

    async def owners(self, ids: Sequence[str]) -> dict[str, Owner]: ...

    async def session_owner(
        self, session_id: str, tenant: str = ""
    ) -> Owner | None: ...


class Owners:
    """Ids that nobody knows are left out of the answer."""

    def __init__(self, store: Ownership) -> None:
        self._store = store

    async def on_post(self, req: Request, resp: Response) -> None:
        lookup = _lookup(await req.stream.read(BODY_BYTES_MAX + 1))
        try:
            async with asyncio.timeout(PATIENCE_S):
                ids, session = await self._find(lookup)
        except TimeoutError as error:
            raise StoreAway(f"no owners within {PATIENCE_S} s") from error
        resp.media = {
            "ids": {id_: msgspec.structs.asdict(owner) for id_, owner in ids.items()},
            "session": msgspec.structs.asdict(session) if session else None,
        }

    async def _find(self, lookup: Lookup) -> tuple[dict[str, Owner], Owner | None]:
        """One after the other: a lookup holds one connection, others theirs."""
        ids = await self._store.owners(lookup.ids) if lookup.ids else {}
        if lookup.session_id is None:
            return ids, None
        return ids, await self._store.session_owner(lookup.session_id, lookup.tenant)


def _lookup(body: bytes) -> Lookup:
    if len(body) > BODY_BYTES_MAX:
        raise _bad(None, f"the body has more than {BODY_BYTES_MAX} bytes")
    try:
        return Lookup.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _bad(where or None, first["msg"]) from None


def _bad(param: str | None, cause: str) -> Problem:
    return Problem(
        400,
        "invalid_request",
        f'Send {{"ids": [...], "session_id": ...}} with up to {IDS_MAX} ids of up to '
        f"{ID_CHARS_MAX} characters: {f'{param}: ' if param else ''}{cause}.",
        param=param,
    )
