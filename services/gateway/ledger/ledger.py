"""Writes decisions and requests to the journal, and reports them to Redis."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from libs.common.routing.functions import Owners
from libs.common.routing.hot_calls import HotCalls
from libs.common.routing.types import Owner, Release
from services.gateway.capture.recorder import CaptureRecorder
from services.gateway.ledger.journal.journal import Journal
from services.gateway.ledger.lease_head import lease_head
from services.gateway.ledger.record import Record


def _ignore() -> None:
    """A verdict that does not arrive is no loss: others follow."""


class Unsent:
    """Called when the event at `position` did not reach Redis. A `partial`, which takes
    less time to make."""

    __slots__ = ("_journal", "_position")

    def __init__(self, journal: Journal, position: int) -> None:
        self._journal, self._position = journal, position

    def __call__(self) -> None:
        self._journal.unsent(self._position)


class Routing(HotCalls, Protocol):
    """The routing functions that it calls."""

    def learn_account(self, resource_id: str, account_id: str) -> Awaitable[bool]: ...

    def adopt(self, *, ids: Owners) -> Awaitable[int]: ...


class Ledger:
    """What this gateway records. A request is journaled before anything else happens
    with it, and its event before Redis is told that it ended."""

    def __init__(
        self,
        routing: Routing,
        journal: Journal,
        without_redis: Callable[[Release], None],
        capturer: CaptureRecorder,
        when_sent: Callable[[Callable[[], None]], bool] = lambda _: False,
    ) -> None:
        """`without_redis` gets the releases of attempts that were decided without
        Redis. `when_sent`: see `SharedConnection`."""
        self._routing = routing
        self._hot: HotCalls = routing
        self._journal = journal
        self._without_redis = without_redis
        self.capturer = capturer
        self.when_sent = when_sent
        self._accounts: dict[str, str] = {}

    def accepted(self, request_id: str, record: Record) -> bytes:
        """Journal an admitted request: from now on it has an end, even if this process
        dies. Returns its `lease_head`."""
        head = lease_head(record)
        self._journal.accepted(request_id, head)
        return head

    def decided(self, decision_id: str, event: bytes) -> None:
        """Journal a decision that Redis made and recorded."""
        self._journal.decided(decision_id, event)

    def decided_alone(self, decision_id: str, event: bytes) -> None:
        """Journal a decision that was made without Redis."""
        self._journal.unsent(self._journal.decided(decision_id, event))

    def report(self, release: Release, *, alone: bool) -> None:
        """Report an attempt whose request goes on. `alone`: it was decided without
        Redis."""
        if alone:
            self._without_redis(release)
        self._hot.report(release, _ignore)

    def ended(self, release: Release, *, alone: bool) -> None:
        """Journal a request event and release its lease. Awaits nothing, so nothing
        can come between the two."""
        journal = self._journal
        position = journal.ended(release.request_id, release.event or b"{}")
        if alone:
            self._without_redis(release)
        self._hot.report(release, Unsent(journal, position))

    def account_named(self, resource_id: str, account_id: str) -> None:
        """An answer named the account of a resource's key. Reported once; if the report
        is lost, the next health check repeats it."""
        if self._accounts.get(resource_id) == account_id:
            return
        self._accounts[resource_id] = account_id
        sent = asyncio.ensure_future(
            self._routing.learn_account(resource_id, account_id)
        )
        sent.add_done_callback(lambda done: done.cancelled() or done.exception())

    def minted_early(self, ids: Sequence[str], owner: Owner) -> None:
        """An answer named its response and goes on: its ids (digests) can be used from
        now on. If the report is lost, they are known when it ends."""
        sent = asyncio.ensure_future(self._routing.adopt(ids=dict.fromkeys(ids, owner)))
        sent.add_done_callback(lambda done: done.cancelled() or done.exception())
