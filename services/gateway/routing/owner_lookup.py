"""Whose sessions and ids these are, when Redis does not know: first what this
gateway remembers, then SQL, through the router."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import httpx
import structlog
from prometheus_client import Counter

from libs.common.routing.functions import Owners
from libs.common.routing.types import Ask, Owner

log = structlog.get_logger()

PATIENCE_S = 2.0
# Of one request: each miss is remembered in Redis, and clients may invent many ids.
MOST_MISSES = 32
LOOKED_UP = Counter(
    "proxy_owner_lookups_total",
    "Unknown ids looked for, by where they were.",
    ["where"],
)


class Found(NamedTuple):
    """Sessions and ids, by digest. Not `complete`: SQL could not be asked."""

    sessions: Owners
    ids: Owners
    complete: bool = True


_NOTHING = Found({}, {})


class OwnerLookup:
    """Looks for owners beyond Redis."""

    def __init__(
        self,
        sessions: Mapping[str, Owner | None],
        ids: Mapping[str, Owner | None],
        router: httpx.AsyncClient,
    ) -> None:
        """`sessions` and `ids` are this gateway's own memory."""
        self._sessions = sessions
        self._ids = ids
        self._router = router
        self._missed = False  # the last lookup

    async def find(self, ask: Ask, ids: Sequence[str]) -> Found:
        """By digest, the owners of what `ask` names; None for what is nowhere. What
        could not be looked for is left out. To know where a request goes one owner is
        enough; to know whether it may name its ids takes all."""
        digests = (*ask.bound, *ask.asker.further)
        known = self._remembered(ask, digests)
        whole = all(digest in known.ids for digest in digests)
        if known != _NOTHING and (whole or not ask.asker.kinds):
            LOOKED_UP.labels("memory").inc()
            return known
        told = await self._ask_router(ask, ids)
        if told is None:
            LOOKED_UP.labels("router away").inc()
            return known._replace(complete=False)
        owners: dict[str, Owner | None] = {}
        for place, (digest, id_) in enumerate(zip(digests, ids, strict=True)):
            owner = known.ids.get(digest) or _owner(told["ids"].get(id_))
            if owner is not None or place < MOST_MISSES:
                owners[digest] = owner
        asked = ask.session and ask.account_bound
        sessions = {ask.session: _owner(told["session"])} if asked else {}
        found = any(owners.values()) or any(sessions.values())
        LOOKED_UP.labels("sql" if found else "nowhere").inc()
        return Found(sessions, owners)

    def _remembered(self, ask: Ask, digests: Sequence[str]) -> Found:
        ids = {d: owner for d in digests if (owner := self._ids.get(d))}
        home = self._sessions.get(ask.session)
        if ids or (home and ask.account_bound):
            return Found({ask.session: home} if home else {}, ids)
        return _NOTHING

    async def _ask_router(self, ask: Ask, ids: Sequence[str]) -> dict[str, Any] | None:
        # A session is looked for where its state matters.
        session = ask.session_id if ask.account_bound else None
        tenant = ask.asker.tenant
        question = {"ids": list(ids), "session_id": session, "tenant": tenant}
        try:
            answer = await self._router.post(
                "/internal/owners", json=question, timeout=PATIENCE_S
            )
            answer.raise_for_status()
            told: dict[str, Any] = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            if not self._missed:  # clients choose how many there are
                log.warning(
                    "owners are not looked up",
                    action="owners_missed",
                    cause=type(error).__name__,
                )
            self._missed = True
            return None
        self._missed = False
        return told


def _owner(told: Any) -> Owner | None:
    if not told:
        return None
    return Owner(told["resource_id"], told["account_id"], told.get("tenant", ""))
