"""One request under way: what came in, what was decided, what is known of it."""

import asyncio
import math
import time
from dataclasses import dataclass

import msgspec
import uuid_utils

from libs.common.bodies.hints import Hints
from libs.common.headers import Header
from libs.common.proxy_keys import Principal
from libs.common.routing.aliases import AliasTarget
from libs.common.routing.types import (
    ANYBODY,
    Ask,
    Asker,
    Decision,
    ForeignId,
    Lease,
    digest,
    model_digest,
    session_digest,
)
from services.gateway.auth.authenticator import pool_for
from services.gateway.auth.endpoints import Route
from services.gateway.auth.isolation import not_found, shared_asker
from services.gateway.capture.recorder import Capture
from services.gateway.errors import Problem
from services.gateway.ledger.record import NEUTRAL, Record, lease_head, lease_record
from services.gateway.proxy.relay import Relay
from services.gateway.server.request import Request

_NO_HINTS = Hints()


@dataclass(slots=True)
class Failure:
    """The last failed attempt, whole: passed on when nobody else can serve."""

    status: int
    headers: list[Header]
    body: bytes


class Exchange:
    """A request from its arrival to its end."""

    # Of most requests these stay as they are: set on the class, they cost nothing.
    accepted = False
    settled = False  # its event is written
    replayed = False  # rewritten for another account
    trial = False  # the current attempt is a half-open trial
    alone = False  # it was decided without Redis
    stalled = False  # the client did not read its answer in time
    interrupted = False  # this gateway ended it
    judged = False  # the current attempt's verdict was sent already
    reason = ""
    cause = ""  # what ended the attempt before
    session = ""  # digest
    head = b""  # its lease's record as it was when it was accepted
    path = b""  # below /v1
    hints = _NO_HINTS
    bound: tuple[str, ...] = ()  # digests of hints.bound_ids
    ids: tuple[str, ...] = ()  # bound_ids, then those of asker.further
    asker = ANYBODY
    route: Route | None = None  # where keys are isolated strictly
    tried: tuple[str, ...] = ()
    principal: Principal | None = None  # None: anybody
    alias: AliasTarget | None = None  # where its model's alias leads
    failure: Failure | None = None
    relay: Relay | None = None
    capture: Capture | None = None  # None: bodies are not captured
    verdict = NEUTRAL
    sent_at: float | None = None
    deadline = math.inf  # loop time
    task: asyncio.Task[None] | None = None  # that serves it; of sockets' requests none

    def __init__(self, request: Request, gateway_id: str, method: str = "") -> None:
        self.began = time.perf_counter()
        self.request = request
        self.headers = request.headers
        self.body = request.body
        self.record = Record(
            str(uuid_utils.uuid7()),
            int(time.time() * 1000),
            method or request.method,
            request.path.decode("latin-1"),
            gateway_id,
        )

    def take(self, hints: Hints, tenant: str = "") -> None:
        """Note what the request says of itself, and for whom."""
        self.hints = hints
        if tenant:
            self.asker = shared_asker(tenant, False)
        if hints.session_id:
            self.session = session_digest(hints.session_id, tenant)
        if hints.bound_ids:
            self.ids = hints.bound_ids
            self.bound = tuple([digest(id_) for id_ in hints.bound_ids])
        record = self.record
        record.request_bytes = len(self.body)
        record.model = hints.model
        record.session_id = hints.session_id
        record.session_name = hints.session_name
        record.pool_id = hints.pool_id
        record.previous_response_id = hints.previous_response_id
        self.accepted = True

    def names(self, route: Route | None, asker: Asker, ids: tuple[str, ...]) -> None:
        """Note which ids the request has to be allowed to name."""
        self.route, self.asker, self.ids = route, asker, ids

    def foreign(self, refused: ForeignId) -> Problem:
        """The answer to a request that names an id which is not its tenant's."""
        problem = not_found(self.ids[refused.which], self.hints, self.route)
        problem.ledger_code = "foreign_id" if refused.known else "unknown_id"
        return problem

    def comes_from(self, principal: Principal | None) -> None:
        """Note whose request this is. Raises a `Problem` when it names a pool that
        is not its key's."""
        if principal is None:
            return
        self.principal = principal
        self.record.proxy_key_id = principal.id
        self.record.team_id = principal.team_id
        pool = pool_for(principal, self.hints.pool_id)
        if pool == self.hints.pool_id:
            return
        self.hints = msgspec.structs.replace(self.hints, pool_id=pool)
        self.record.pool_id = pool

    def unbind(self, body: bytes) -> None:
        """Go on with a body that any account can read."""
        self.body, self.replayed = body, True
        self.bound = self.ids = ()
        # Whose its ids are was checked before.
        self.asker = Asker(self.asker.tenant, self.asker.strict)
        # It is plain now, whatever it was packed with.
        self.headers = [h for h in self.headers if h[0] != b"content-encoding"]

    def ask(self, attempt: int, draw: int) -> Ask:
        """What routing is asked for the next attempt."""
        record, hints = self.record, self.hints
        # In the order of the fields: names would double what this costs.
        return Ask(
            record.id,
            str(uuid_utils.uuid7()),
            attempt,
            record.gateway_id,
            hints.pool_id,
            hints.session_id,
            self.session,
            model_digest(hints.model),
            self.bound,
            hints.account_bound and not self.replayed,
            self.tried,
            record.resource_id or "",
            (attempt == 1 and self.head) or lease_head(record),
            draw,
            False,  # SQL was not asked
            self.replayed,
            self.cause,
            self.asker,
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
        return Lease(self.record.id, resource_id, lease_record(self.record))

    def ms(self, until: float | None = None) -> float:
        """Milliseconds since the request came."""
        end = time.perf_counter() if until is None else until
        return int((end - self.began) * 1e6) / 1000  # round() takes thrice as long

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

    def our_lines(self) -> bytes:
        """The same of an answer that was decided, as lines for the wire."""
        record = self.record
        return (
            f"x-proxy-request-id: {record.id}\r\n"
            f"x-proxy-attempts: {record.attempts}\r\n"
            f"x-proxy-resource-id: {record.resource_id}\r\n"
            f"x-proxy-reason: {self.reason}\r\n"
        ).encode()
