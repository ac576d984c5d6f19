"""Admits requests to the ledger and settles them, each exactly once. (How many a key
has in flight is the number of its leases in Redis.)"""

import time
from typing import Final

import uuid_utils

from libs.common.contracts.events import Outcome
from libs.common.headers import Header
from libs.common.routing.accounts import account_named
from libs.common.routing.types import Owner, digest
from libs.common.upstream_answers.verdicts import Verdict
from services.gateway import event_log
from services.gateway.capture.capture import Capture
from services.gateway.content.response_facts import read_event
from services.gateway.ledger.ledger import Ledger
from services.gateway.ledger.record import Record
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.proxy.steps import ARRIVED, SETTLED
from services.gateway.proxy.turn_lifecycle import TurnLifecycle
from services.gateway.request_metrics import attempt_ended, request_ended
from services.gateway.routing.limits import LimitNotes
from services.gateway.routing.offline import OfflineRouting
from services.gateway.routing.target import Target
from services.gateway.routing.waiting_room import WaitingRoom
from services.gateway.server.request import Request

_OK: Final = Verdict(kind="ok")
# Found once: a look-up of an imported name takes longer than the clock.
clock: Final = time.perf_counter
_unix_s: Final = time.time
_new_id: Final = uuid_utils.uuid7
_Record: Final = Record
_COMPLETED: Final = Outcome.COMPLETED.value


class InFlight:
    """From a request's arrival to its settlement: the ledger, the load of this gateway,
    and the usage of proxy keys."""

    def __init__(
        self,
        gateway_id: str,
        ledger: Ledger,
        offline: OfflineRouting,
        limits: LimitNotes | None = None,
        room: WaitingRoom | None = None,
        *,
        access_log: bool = False,
    ) -> None:
        """`limits`: None if those of accounts do not matter. `room`: where requests
        wait until others end. `access_log`: write a line for each request."""
        self._access_log = access_log
        self.gateway_id = gateway_id
        self.ledger = ledger
        self.offline = offline
        self._limits = limits
        self.room = room
        self.active: dict[str, Lifecycle] = {}  # by request id

    def arrived(self, request: Request) -> Lifecycle:
        """An HTTP request that is not in the ledger yet."""
        record = _Record(
            str(_new_id()),
            int(_unix_s() * 1000),
            request.method,
            request.path.decode("latin-1"),
            self.gateway_id,
        )
        return Lifecycle(request, record, clock())

    def arrived_on_socket(self, request: Request) -> TurnLifecycle:
        """The same for an upgrade, or a turn on its socket."""
        record = Record(
            str(_new_id()),
            int(_unix_s() * 1000),
            "WS",
            request.path.decode("latin-1"),
            self.gateway_id,
            transport="ws",
        )
        return TurnLifecycle(request, record, clock())

    def admitted(self, life: Lifecycle) -> None:
        """Record it: from now on it has an end, whatever happens."""
        self.active[life.id] = life
        limits, hints, tokens = self._limits, life.hints, None
        if limits is not None and hints.model:
            reserved = max(hints.max_output_tokens or 0, 0)
            tokens = limits.estimate(hints.model, len(life.body), reserved)
        life.recorded(self.ledger.accepted(life.id, life.record), tokens)

    def attempt_began(self, life: Lifecycle, target: Target) -> None:
        """A request holds the lease of an attempt."""
        self.offline.began(life.gateway_id, life.id, target.id)
        if life.cause and life.record.attempts > 1:
            record = life.record
            before = life.tried[-1] if life.tried else record.resource_id
            event_log.failed_over(record, before or "", life.cause)

    def attempt_failed(self, life: Lifecycle) -> None:
        """Report the verdict of an attempt; its request goes on."""
        verdict = life.verdict
        attempt_ended(life.record.resource_id, verdict.kind)
        limits = self._told(life, clock()) if life.limits_in else ""
        self.ledger.report(life.released(verdict, limits), alone=life.decision.degraded)
        life.reported()

    def _told(self, life: Lifecycle, now: float) -> str:
        """What the current attempt's answer says of limits."""
        model, resource_id = life.hints.model, life.record.resource_id
        if self._limits is None or not model or not resource_id:
            return ""
        began = life.sent_at + (life.record.upstream_ms or 0) / 1000
        return self._limits.told(resource_id, model, life.limits_in, began, now)

    def works_again(self, life: Lifecycle) -> None:
        """The first attempt after a cooldown was answered: other requests need not
        wait until this one has ended."""
        self.ledger.report(life.released(_OK), alone=life.decision.degraded)

    def _learn_size(self, life: Lifecycle) -> None:
        """How many tokens its model's requests take."""
        record, hints, limits = life.record, life.hints, self._limits
        if limits is None or record.input_tokens is None or not hints.model:
            return
        tokens = record.input_tokens
        if not hints.max_output_tokens:
            tokens += record.output_tokens or 0
        limits.took(hints.model, len(life.body), tokens)

    def learn_account(self, target: Target, headers: list[Header]) -> None:
        """An answer may name the account of its key. For resources whose account is
        not known."""
        account = account_named(headers)
        if account is not None and not target.sent.shown_in(account):
            self.ledger.account_named(target.resource.id, account)

    def learn_early(self, life: Lifecycle, created: bytes) -> None:
        """Others may ask for a background response while its answer goes on. `created`
        is the event that names it."""
        record, tenant = life.record, life.asker.tenant
        learned = tuple([digest(id_) for id_ in read_event(created)[1].ids])
        resource_id, account_id = record.resource_id or "", record.account_id or ""
        self.offline.remember_success("", learned, resource_id, account_id, tenant)
        self.ledger.minted_early(learned, Owner(resource_id, account_id, tenant))

    def upgraded(self, life: Lifecycle) -> None:
        """An upgrade opened its WebSocket: it is no request any more."""
        self.active.pop(life.id, None)

    async def close(self) -> None:
        """The gateway ends, and all requests have."""

    def _log(self, life: Lifecycle) -> None:
        record, problem = life.record, life.problem
        if record.outcome != _COMPLETED:
            refusal = None if problem is None else problem.ledger_code
            event_log.ended(record, life.verdict.cause, refusal)
        if self._access_log:
            event_log.write_access(record)

    def settle(self, life: Lifecycle, capture: Capture | None) -> None:
        """Release the lease and write the request event, exactly once. A request that
        was not admitted has neither."""
        if life.phase is ARRIVED or life.phase is SETTLED:
            return
        record = life.record
        now = clock()
        limits = self._told(life, now) if life.limits_in else ""
        prices = self.offline.catalogue.prices
        if prices is not None:
            record.price(prices)
        release = life.ended(now, int(_unix_s() * 1000), limits)
        self._learn_size(life)
        if life.id in self.active:
            del self.active[life.id]
        verdict = release.verdict
        request_ended(record, None if verdict is None else verdict.kind)
        if record.outcome != _COMPLETED or self._access_log:
            self._log(life)
        if release.resource_id and (release.session or release.learned):
            self.offline.remember_success(
                release.session,
                release.learned,
                release.resource_id,
                record.account_id or "",
                release.tenant,
            )
        self.ledger.ended(release, alone=life.decision.degraded)
        if self.room is not None and self.room.waiting:
            self.room.freed()  # one that waits may have its turn
        if capture is not None:
            self.ledger.capturer.hand_over(life.id, record.created_at_ms, capture)
