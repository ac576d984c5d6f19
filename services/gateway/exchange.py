"""One request under way: what came in, what was decided, what is known of it."""

import time
from dataclasses import dataclass, replace

import uuid_utils

from libs.common.asks import Ask, Decision, Lease, digest, model_digest
from libs.common.headers import Header
from libs.common.hints import Hints
from libs.common.proxy_keys import Principal
from services.gateway.admission import pool_for
from services.gateway.incoming import Scope
from services.gateway.outcomes import NEUTRAL, Record, lease_head
from services.gateway.relay import Relay


@dataclass(slots=True)
class Failure:
    """The last failed attempt, whole: passed on when nobody else can serve."""

    status: int
    headers: list[Header]
    body: bytes


class Exchange:
    """A request from its arrival to its end."""

    def __init__(self, scope: Scope, gateway_id: str) -> None:
        self.began = time.perf_counter()
        self.scope = scope
        self.headers: list[Header] = scope["headers"]
        self.body = b""
        self.path = b""
        self.hints = Hints()
        self.principal: Principal | None = None  # None: anybody
        self.session = ""  # digest
        self.bound: tuple[str, ...] = ()  # digests of hints.bound_ids
        self.accepted = False
        self.settled = False  # its event is written
        self.replayed = False  # rewritten for another account
        self.tried: list[str] = []
        self.reason = ""
        self.failure: Failure | None = None
        self.relay: Relay | None = None
        self.verdict = NEUTRAL
        self.trial = False  # the current attempt is a half-open trial
        self.alone = False  # it was decided without Redis
        self.stalled = False  # the client did not read its answer in time
        self.judged = False  # the current attempt's verdict was sent already
        self.sent_at: float | None = None
        self.record = Record(
            id=str(uuid_utils.uuid7()),
            created_at_ms=int(time.time() * 1000),
            method=scope["method"],
            path=scope["path"],
            gateway_id=gateway_id,
        )

    def take(self, hints: Hints) -> None:
        """Note what the request says of itself."""
        self.hints = hints
        self.session = digest(hints.session_id) if hints.session_id else ""
        self.bound = tuple(digest(id_) for id_ in hints.bound_ids)
        record = self.record
        record.request_bytes = len(self.body)
        record.model = hints.model
        record.session_id = hints.session_id
        record.session_name = hints.session_name
        record.pool_id = hints.pool_id
        record.previous_response_id = hints.previous_response_id
        self.accepted = True

    def comes_from(self, principal: Principal | None) -> None:
        """Note whose request this is. Raises a `Problem` when it names a pool that
        is not its key's."""
        if principal is None:
            return
        self.principal = principal
        self.record.proxy_key_id = principal.id
        pool = pool_for(principal, self.hints.pool_id)
        self.hints = replace(self.hints, pool_id=pool)
        self.record.pool_id = pool

    def unbind(self, body: bytes) -> None:
        """Go on with a body that any account can read."""
        self.body, self.replayed, self.bound = body, True, ()
        # It is plain now, whatever it was packed with.
        self.headers = [h for h in self.headers if h[0] != b"content-encoding"]

    def ask(self, attempt: int, draw: int) -> Ask:
        """What routing is asked for the next attempt."""
        record, hints = self.record, self.hints
        return Ask(
            request_id=record.id,
            decision_id=str(uuid_utils.uuid7()),
            attempt=attempt,
            gateway_id=record.gateway_id,
            pool_id=hints.pool_id,
            session_id=hints.session_id,
            session=self.session,
            model=model_digest(hints.model),
            bound=self.bound,
            account_bound=hints.account_bound and not self.replayed,
            tried=tuple(self.tried),
            previous=record.resource_id or "",
            lease=self._lease_head(),
            draw=draw,
            replayed=self.replayed,
        )

    def goes_to(self, decision: Decision, account_id: str, attempt: int) -> None:
        """Note where the current attempt goes."""
        self.reason = decision.reason
        self.judged = False
        self.trial, self.alone = decision.trial, decision.degraded
        self.record.attempts = attempt
        self.record.resource_id = decision.resource_id
        self.record.account_id = account_id

    def lease(self) -> Lease | None:
        """The lease this request should hold now."""
        resource_id = self.record.resource_id
        if resource_id is None or self.settled:
            return None
        return Lease(self.record.id, resource_id, lease_head(self.record) + b"}")

    def _lease_head(self) -> bytes:
        """What the reaper tells of the request should this gateway die: all but
        the attempt and its resource, which the function adds."""
        record = self.record
        current = record.resource_id, record.account_id, record.attempts
        record.resource_id = record.account_id = None
        record.attempts = 0
        head = lease_head(record)
        record.resource_id, record.account_id, record.attempts = current
        return head

    def ms(self, until: float | None = None) -> float:
        """Milliseconds since the request came."""
        end = time.perf_counter() if until is None else until
        return round((end - self.began) * 1000, 3)

    def ours(self) -> list[Header]:
        """The headers that tell the client what we did."""
        record = self.record
        headers = [
            (b"x-proxy-request-id", record.id.encode()),
            (b"x-proxy-attempts", b"%d" % record.attempts),
        ]
        if record.resource_id:
            headers.append((b"x-proxy-resource-id", record.resource_id.encode()))
        if self.reason:
            headers.append((b"x-proxy-reason", self.reason.encode()))
        return headers
