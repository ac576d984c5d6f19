"""Looks up the owners of sessions and ids that Redis does not know: first in this
gateway's memory, then in SQL, through the router."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import httpx
import structlog

from libs.common.routing.functions import Owners
from libs.common.routing.types import Ask, Owner
from services.gateway.metrics import Counter

log = structlog.get_logger()

TIMEOUT_S = 2.0
# Unknown ids of one request that are stored as such in Redis. Clients may invent many.
MOST_MISSES = 32
LOOKED_UP = Counter(
    "proxy_owner_lookups_total",
    "Lookups of ids that Redis does not know, by where they were found.",
    "where",
)


class Found(NamedTuple):
    """Owners by digest. Not `complete`: SQL could not be queried."""

    sessions: Owners
    ids: Owners
    complete: bool = True


_NOTHING = Found({}, {})


class OwnerLookup:
    """Looks up owners outside Redis."""

    def __init__(
        self,
        sessions: Mapping[str, Owner | None],
        ids: Mapping[str, Owner | None],
        router: httpx.AsyncClient,
    ) -> None:
        """`sessions` and `ids`: the owners that this gateway knows."""
        self._sessions = sessions
        self._ids = ids
        self._router = router
        self._failed = False  # did the last query fail?

    async def find(self, ask: Ask, ids: Sequence[str]) -> Found:
        """The owners of the session and ids that `ask` names, None for unknown ones.
        What could not be looked up is left out. One owner is enough to route a
        request; to check access (`asker.kinds`) all are needed."""
        digests = (*ask.bound, *ask.asker.further)
        known = self._remembered(ask, digests)
        whole = all(digest in known.ids for digest in digests)
        if known != _NOTHING and (whole or not ask.asker.kinds):
            LOOKED_UP.inc("memory")
            return known
        reply = await self._ask_router(ask, ids)
        if reply is None:
            LOOKED_UP.inc("router away")
            return known._replace(complete=False)
        owners: dict[str, Owner | None] = {}
        for place, (digest, id_) in enumerate(zip(digests, ids, strict=True)):
            owner = known.ids.get(digest) or _owner(reply["ids"].get(id_))
            if owner is not None or place < MOST_MISSES:
                owners[digest] = owner
        asked = ask.session and ask.account_bound
        sessions = {ask.session: _owner(reply["session"])} if asked else {}
        found = any(owners.values()) or any(sessions.values())
        LOOKED_UP.inc("sql" if found else "nowhere")
        return Found(sessions, owners)

    def _remembered(self, ask: Ask, digests: Sequence[str]) -> Found:
        ids = {d: owner for d in digests if (owner := self._ids.get(d))}
        home = self._sessions.get(ask.session)
        if ids or (home and ask.account_bound):
            return Found({ask.session: home} if home else {}, ids)
        return _NOTHING

    async def _ask_router(self, ask: Ask, ids: Sequence[str]) -> dict[str, Any] | None:
        # A session's owner only matters if the account holds state of it.
        session = ask.session_id if ask.account_bound else None
        tenant = ask.asker.tenant
        question = {"ids": list(ids), "session_id": session, "tenant": tenant}
        try:
            answer = await self._router.post(
                "/internal/owners", json=question, timeout=TIMEOUT_S
            )
            answer.raise_for_status()
            reply: dict[str, Any] = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            if not self._failed:  # once, because clients cause as many as they like
                log.warning(
                    "owners of ids cannot be looked up: the router does not answer",
                    action="owners_missed",
                    cause=type(error).__name__,
                )
            self._failed = True
            return None
        self._failed = False
        return reply


def _owner(reply: Any) -> Owner | None:
    if not reply:
        return None
    return Owner(reply["resource_id"], reply["account_id"], reply.get("tenant", ""))
