"""A socket's way to an upstream: one resource after the other, until one opens."""

import random
from collections.abc import Callable
from datetime import UTC, datetime

from libs.common.contracts.events import Cause, Reason
from libs.common.contracts.verdicts import Verdict, judge
from libs.common.errors import NoCatalogue, RedisAway
from libs.common.routing.types import ForeignId, Refusal, UnknownIds
from services.gateway import errors
from services.gateway.content.response_facts import read_answer
from services.gateway.errors import Problem
from services.gateway.ledger.record import NEUTRAL
from services.gateway.proxy.context import Exchange
from services.gateway.proxy.retry import cause_of, retried
from services.gateway.routing.catalogue import Target
from services.gateway.routing.selector import Chooser, problem_of
from services.gateway.upstream.client import NoKey, UpstreamError
from services.gateway.upstream.errors import NoFreeConnection
from services.gateway.websocket.turns import PATH, Books
from services.gateway.websocket.upstream import Opened, Opener, Refused

_HOMES = (Reason.RESPONSE_AFFINITY, Reason.SESSION_AFFINITY)


class Upgrades:
    """Opens upstream sockets."""

    def __init__(
        self, books: Books, attempts: int, chooser: Chooser, opener: Opener
    ) -> None:
        self._books = books
        self._attempts = attempts
        self._chooser = chooser
        self._opener = opener
        self._draw: Callable[[int], int] = random.getrandbits

    async def open(self, upgrade: Exchange) -> Opened:
        """Open the upstream's socket, where it can be had. Raises `Refused` with
        what the last upstream said, or a `Problem`."""
        refused: Refused | None = None
        first = upgrade.record.attempts + 1
        for attempt in range(first, first + self._attempts):
            try:
                target = await self._acquire(upgrade, attempt)
            except Problem:
                if attempt == first:
                    raise
                break
            try:
                return await self._dial(upgrade, target)
            except Refused as refusal:
                refused = refusal
                self._note_refusal(upgrade, refusal)
                if not retried(refusal.status):
                    break
            except UpstreamError as error:
                refused = None
                self._note_error(upgrade, error)
        if refused is not None:
            raise refused
        record = upgrade.record
        raise errors.upstream_unreachable(
            record.attempts, record.error_message or "no answer"
        )

    async def move(self, first: Exchange, target: Target) -> Opened | None:
        """A socket is opened by its headers; its first request may name ids or a
        session that live elsewhere. The socket to use instead, if there is one:
        nothing was sent on the other yet. Raises a `Problem` when its model's alias
        leads elsewhere, and no socket opens there."""
        way = first.way
        if way is not None and way.provider_id != target.resource.provider_id:
            return await self._open_there(first)
        if not await self._lives_elsewhere(first, target):
            return None
        first.cause = Cause.LIVES_ELSEWHERE
        try:
            home = await self._acquire(first, first.record.attempts + 1)
        except Problem:
            return None  # the upstream will say it in its own words
        if first.reason not in _HOMES or home.resource.id == target.resource.id:
            return None
        try:
            return await self._dial(first, home)
        except Refused as refusal:
            self._note_refusal(first, refusal)
        except UpstreamError as error:
            self._note_error(first, error)
        return None

    async def _open_there(self, first: Exchange) -> Opened:
        try:
            return await self.open(first)
        except Refused as refused:
            cause = f"the upstream refuses sockets with {refused.status}"
            raise errors.upstream_unreachable(first.record.attempts, cause) from None

    async def _lives_elsewhere(self, first: Exchange, target: Target) -> bool:
        if not first.bound and not first.session:
            return False
        ask = first.ask(first.record.attempts + 1, self._draw(31))
        try:
            told = await self._books.routing.explain(ask, None)
        except UnknownIds:
            return True  # SQL may know
        except (Refusal, RedisAway, NoCatalogue):
            return False
        return told.reason in _HOMES and told.resource_id != target.resource.id

    async def _acquire(self, upgrade: Exchange, attempt: int) -> Target:
        ask = upgrade.ask(attempt, self._draw(31))
        try:
            decision = await self._chooser.decide(ask, upgrade.ids)
        except ForeignId as refused:
            raise upgrade.foreign(refused) from None
        except Refusal as refusal:
            raise problem_of(refusal, ask, "WS") from None
        target = await self._chooser.find(decision)
        upgrade.goes_to(decision, target.resource.account_id, attempt)
        return target

    async def _dial(self, upgrade: Exchange, target: Target) -> Opened:
        books, record = self._books, upgrade.record
        counted = record.gateway_id, record.id, target.resource.id
        path = PATH + upgrade.request.query
        books.fallback.began(*counted)
        try:
            connection = await self._opener.open(target, path, upgrade.headers)
        finally:
            books.fallback.ended(*counted)
        return Opened(connection, target)

    def _note_refusal(self, upgrade: Exchange, refusal: Refused) -> None:
        record, facts = upgrade.record, read_answer(refusal.plain)
        record.error_code = facts.error_code
        record.error_message = facts.error_message
        verdict = judge(refusal.status, refusal.headers, facts.error_code, _now)
        self._failed(upgrade, verdict, cause_of(refusal.status, verdict))

    def _note_error(self, upgrade: Exchange, error: UpstreamError) -> None:
        upgrade.record.error_message = cause = str(error)
        # What is missing here is this gateway's trouble, not the resource's.
        ours = isinstance(error, NoKey | NoFreeConnection)
        verdict = NEUTRAL if ours else Verdict(kind="fault", cause=cause)
        self._failed(upgrade, verdict, error.cause)

    def _failed(self, upgrade: Exchange, verdict: Verdict, cause: str) -> None:
        self._books.ledger.attempt_failed(upgrade, verdict)
        upgrade.judged, upgrade.cause = True, cause
        upgrade.tried = (*upgrade.tried, upgrade.record.resource_id or "")


def _now() -> datetime:
    return datetime.now(UTC)
