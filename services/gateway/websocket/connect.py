"""Opens an upstream's socket for a client's: tries resources until one accepts."""

import random
from collections.abc import Callable
from datetime import UTC, datetime

from libs.common.contracts.events import Cause, Reason, Verdict
from libs.common.contracts.verdicts import judge
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
from services.gateway.websocket.upstream import Opened, Opener, UpgradeRefused

_AFFINITY = (Reason.RESPONSE_AFFINITY, Reason.SESSION_AFFINITY)


class SocketConnector:
    """Chooses resources and opens sockets to them."""

    def __init__(
        self, books: Books, attempts: int, chooser: Chooser, opener: Opener
    ) -> None:
        self._books = books
        self._attempts = attempts
        self._chooser = chooser
        self._opener = opener
        self._draw: Callable[[int], int] = random.getrandbits

    async def open(self, upgrade: Exchange) -> Opened:
        """Open a socket at the first resource that accepts the upgrade. Raises
        `UpgradeRefused` with the last upstream's answer, or a `Problem`."""
        refused: UpgradeRefused | None = None
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
            except UpgradeRefused as error:
                refused = error
                self._record_refusal(upgrade, error)
                if not retried(error.status):
                    break
            except UpstreamError as error:
                refused = None
                self._record_error(upgrade, error)
        if refused is not None:
            raise refused
        record = upgrade.record
        raise errors.upstream_unreachable(
            record.attempts, record.error_message or "no answer"
        )

    async def move(self, first: Exchange, target: Target) -> Opened | None:
        """Open another socket if the first request belongs to another resource, and
        return it.

        The socket to `target` was opened before the first request told its model
        alias, ids and session. Nothing was sent on it yet. Raises a `Problem` if the
        alias leads to another provider and no socket can be opened there.
        """
        way = first.way
        if way is not None and way.provider_id != target.resource.provider_id:
            return await self._open_by_alias(first)
        if not await self._belongs_elsewhere(first, target):
            return None
        first.cause = Cause.LIVES_ELSEWHERE
        try:
            owner = await self._acquire(first, first.record.attempts + 1)
        except Problem:
            return None  # the present upstream will reject the request
        if first.reason not in _AFFINITY or owner.resource.id == target.resource.id:
            return None
        try:
            return await self._dial(first, owner)
        except UpgradeRefused as error:
            self._record_refusal(first, error)
        except UpstreamError as error:
            self._record_error(first, error)
        return None

    async def _open_by_alias(self, first: Exchange) -> Opened:
        try:
            return await self.open(first)
        except UpgradeRefused as refused:
            cause = f"the upstream refused the WebSocket with status {refused.status}"
            raise errors.upstream_unreachable(first.record.attempts, cause) from None

    async def _belongs_elsewhere(self, first: Exchange, target: Target) -> bool:
        """Whether ids or session of the request belong to another resource, or may,
        because only SQL can tell."""
        if not first.bound and not first.session:
            return False
        ask = first.ask(first.record.attempts + 1, self._draw(31))
        try:
            explained = await self._books.routing.explain(ask, None)
        except UnknownIds:
            return True
        except (Refusal, RedisAway, NoCatalogue):
            return False
        by_affinity = explained.reason in _AFFINITY
        return by_affinity and explained.resource_id != target.resource.id

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

    def _record_refusal(self, upgrade: Exchange, error: UpgradeRefused) -> None:
        record, facts = upgrade.record, read_answer(error.plain)
        record.error_code = facts.error_code
        record.error_message = facts.error_message
        verdict = judge(error.status, error.headers, facts.error_code, _now)
        self._end_attempt(upgrade, verdict, cause_of(error.status, verdict))

    def _record_error(self, upgrade: Exchange, error: UpstreamError) -> None:
        upgrade.record.error_message = cause = str(error)
        # These two are shortages of this gateway, not failures of the resource.
        ours = isinstance(error, NoKey | NoFreeConnection)
        verdict = NEUTRAL if ours else Verdict(kind="fault", cause=cause)
        self._end_attempt(upgrade, verdict, error.cause)

    def _end_attempt(self, upgrade: Exchange, verdict: Verdict, cause: str) -> None:
        self._books.ledger.attempt_failed(upgrade, verdict)
        upgrade.judged, upgrade.cause = True, cause
        upgrade.tried = (*upgrade.tried, upgrade.record.resource_id or "")


def _now() -> datetime:
    return datetime.now(UTC)
