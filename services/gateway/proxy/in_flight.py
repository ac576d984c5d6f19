"""Admits requests to the ledger and settles them, each exactly once. (How many a key
has in flight is the number of its leases in Redis.)"""

import time

import uuid_utils

from libs.common.contracts.verdicts import Verdict
from libs.common.headers import Header
from libs.common.routing.accounts import account_named
from libs.common.routing.types import Owner, digest
from services.gateway import metrics
from services.gateway.auth.access_control import AccessControl
from services.gateway.capture.recorder import Capture
from services.gateway.content.response_facts import read_event
from services.gateway.ledger.ledger import Ledger
from services.gateway.ledger.record import Record
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.proxy.steps import ARRIVED, SETTLED
from services.gateway.routing.catalogue import Target
from services.gateway.routing.offline import OfflineRouting
from services.gateway.server.request import Request

_OK = Verdict(kind="ok")


class InFlight:
    """From a request's arrival to its settlement: the ledger, the load of this gateway,
    and the usage of proxy keys."""

    def __init__(
        self,
        gateway_id: str,
        ledger: Ledger,
        offline: OfflineRouting,
        access: AccessControl,
    ) -> None:
        self.gateway_id = gateway_id
        self.ledger = ledger
        self.offline = offline
        self._access = access
        self.active: dict[str, Lifecycle] = {}  # by request id

    def arrived(self, request: Request) -> Lifecycle:
        """An HTTP request that is not in the ledger yet."""
        record = Record(
            str(uuid_utils.uuid7()),
            int(time.time() * 1000),
            request.method,
            request.path.decode("latin-1"),
            self.gateway_id,
        )
        return Lifecycle(request, record, time.perf_counter())

    def arrived_on_socket(self, request: Request) -> Lifecycle:
        """The same for an upgrade, or a turn on its socket."""
        life = self.arrived(request)
        life.record.method, life.record.transport = "WS", "ws"
        return life

    def admitted(self, life: Lifecycle) -> None:
        """Record it: from now on it has an end, whatever happens."""
        self.active[life.record.id] = life
        life.recorded(self.ledger.accepted(life.record))

    def attempt_failed(self, life: Lifecycle) -> None:
        """Report the verdict of an attempt; its request goes on."""
        verdict = life.verdict
        metrics.attempts[verdict.kind] += 1
        self.ledger.report(life.released(verdict), alone=life.decision.degraded)
        life.reported()

    def works_again(self, life: Lifecycle) -> None:
        """The first attempt after a cooldown was answered: other requests need not
        wait until this one has ended."""
        self.ledger.report(life.released(_OK), alone=life.decision.degraded)

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

    def settle(self, life: Lifecycle, capture: Capture | None) -> None:
        """Release the lease and write the request event, exactly once. A request that
        was not admitted has neither."""
        if life.phase is ARRIVED or life.phase is SETTLED:
            return
        record = life.record
        release = life.ended(time.perf_counter(), int(time.time() * 1000))
        self.active.pop(record.id, None)
        metrics.requests[record.outcome or "failed"] += 1
        if record.resource_id:
            if release.verdict is not None:
                metrics.attempts[release.verdict.kind] += 1
            if release.session or release.learned:
                self.offline.remember_success(
                    release.session,
                    release.learned,
                    record.resource_id,
                    record.account_id or "",
                    release.tenant,
                )
        if record.overhead_ms is not None:
            metrics.overhead.observe(record.overhead_ms / 1000)
        if life.principal is not None and life.principal.tokens_per_minute:
            self._access.spend(life.principal, record.total_tokens)
        self.ledger.ended(release, alone=life.decision.degraded)
        if capture is not None:
            self.ledger.capture(record, capture)
