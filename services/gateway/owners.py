"""Whose sessions and ids these are, when Redis does not know: first what this
gateway remembers, then SQL, through the router."""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import structlog
from prometheus_client import Counter

from libs.common.asks import Ask, Owner
from libs.common.routing import Owners

log = structlog.get_logger()

PATIENCE_S = 2.0
LOOKED_UP = Counter(
    "proxy_owner_lookups_total",
    "Unknown ids looked for, by where they were.",
    ["where"],
)
Found = tuple[Owners, Owners]  # sessions and ids, by digest
_NOTHING: Found = ({}, {})


class OwnerSearch:
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

    async def find(self, ask: Ask, bound_ids: Sequence[str]) -> Found:
        """By digest, the owners of what `ask` names; None for what is nowhere. What
        could not be looked for is left out."""
        known = self._remembered(ask)
        if known != _NOTHING:
            LOOKED_UP.labels("memory").inc()
            return known
        told = await self._ask_router(ask, bound_ids)
        if told is None:
            LOOKED_UP.labels("router away").inc()
            return _NOTHING
        ids = {
            digest: _owner(told["ids"].get(id_))
            for digest, id_ in zip(ask.bound, bound_ids, strict=True)
        }
        asked = ask.session and ask.account_bound
        sessions = {ask.session: _owner(told["session"])} if asked else {}
        found = any(ids.values()) or any(sessions.values())
        LOOKED_UP.labels("sql" if found else "nowhere").inc()
        return sessions, ids

    def _remembered(self, ask: Ask) -> Found:
        ids = {d: owner for d in ask.bound if (owner := self._ids.get(d))}
        home = self._sessions.get(ask.session)
        if ids or (home and ask.account_bound):
            return ({ask.session: home} if home else {}), ids
        return _NOTHING

    async def _ask_router(
        self, ask: Ask, bound_ids: Sequence[str]
    ) -> dict[str, Any] | None:
        # A session is looked for where its state matters.
        session = ask.session_id if ask.account_bound else None
        question = {"ids": list(bound_ids), "session_id": session}
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
    return Owner(told["resource_id"], told["account_id"]) if told else None
