"""What a request says, whose it is, and which ids it may name. Pure."""

from typing import Final

from libs.common.bodies.hints import Hints
from libs.common.bodies.scanner import Scan
from libs.common.bodies.strip_reasoning import TURN_STATE
from libs.common.headers import Header, find
from libs.common.proxy_keys import Principal
from libs.common.routing.aliases import AliasTarget, Targets, in_order, session_within
from libs.common.routing.budgets import Quota
from libs.common.routing.types import (
    ANYBODY,
    Asker,
    ForeignId,
    Place,
    Release,
    digest,
    session_digest,
)
from libs.common.upstream_answers.verdicts import Verdict
from services.gateway.auth import endpoints, isolation
from services.gateway.auth.endpoints import Route
from services.gateway.auth.isolation import not_found, shared_asker
from services.gateway.auth.policy import most_tokens
from services.gateway.auth.pools import pool_for
from services.gateway.content.headers import lines_of, request_head
from services.gateway.errors import Problem
from services.gateway.ledger.record import Record
from services.gateway.proxy.retry import may_repeat
from services.gateway.routing.model_alias import allowed_targets, with_alias_model
from services.gateway.routing.spend import limit_headers, limit_lines
from services.gateway.routing.target import Target
from services.gateway.routing.target_order import TargetOrder
from services.gateway.server.request import Request

_NO_HINTS: Final = Hints()
_TURN_STATE = TURN_STATE.encode()
_OF_PARTS = frozenset(
    {b"accept-encoding", b"range", b"if-range", b"if-none-match", b"if-modified-since"}
)


class RequestContext:
    """A request before it is decided where it goes. `Lifecycle` extends it, so that a
    request takes one object."""

    # Most requests never set these. As class attributes they cost nothing.
    head = b""  # the JSON of its lease at admission
    path = b""  # below /v1
    hints = _NO_HINTS
    session = ""  # digest
    bound: tuple[str, ...] = ()  # digests of hints.bound_ids
    ids: tuple[str, ...] = ()  # bound_ids, then those of asker.further
    asker = ANYBODY
    route: Route | None = None  # with strict isolation
    principal: Principal | None = None  # None: a request without a proxy key
    alias: AliasTarget | None = None  # the target of its model alias
    targets: TargetOrder | None = None  # if the alias has several for this request
    replayed = False  # rewritten for another account
    queued_s = 0.0  # how long it waited in queues
    tokens: int | None = None  # that it may take; None: limits do not matter

    def __init__(self, request: Request, record: Record, began: float) -> None:
        self.request = request
        self.headers = request.headers
        self.body = request.body
        self.record = record
        # Of the record, whose members take a look-up each.
        self.id, self.gateway_id = record.id, record.gateway_id
        self.began = began  # seconds of time.perf_counter
        # Not class attributes. CPython shares the names of attributes among instances
        # only if the first few have them: a request of a limited key among others
        # would get a dictionary of its own, which makes each access slower.
        self.quota: Quota | None = None  # the limits of its key
        # What was counted, once they allowed it; empty if that is not known.
        self.left: bytes | None = None
        self.may_use = 0  # tokens of a budget that reserves

    def take(
        self,
        path: bytes,
        hints: Hints,
        principal: Principal | None,
        alias: Targets | None = None,
    ) -> None:
        """Note what the request says, whose it is, and where its model alias leads.
        Raises a `Problem` when its proxy key does not allow the pool or the model."""
        self.path, self.hints = path, hints
        record = self.record
        tenant = ""
        if principal is not None:
            self.principal = principal
            tenant = principal.tenant
            record.proxy_key_id = principal.id
            record.team_id = principal.team_id
            self.asker = shared_asker(tenant, False)
        if hints.session_id:
            self.session = session_digest(hints.session_id, tenant)
        if hints.bound_ids:
            self.ids = hints.bound_ids
            self.bound = tuple([digest(id_) for id_ in hints.bound_ids])
        record.request_bytes = len(self.body)
        record.model = hints.model
        record.session_id = hints.session_id
        record.session_name = hints.session_name
        record.pool_id = hints.pool_id
        record.previous_response_id = hints.previous_response_id
        if alias is not None:
            self.follow(alias, hints.pool_id)
        elif principal is not None:
            pool = pool_for(principal, hints.pool_id)
            if pool != hints.pool_id:
                self.hints = hints.sent_to(pool, hints.model)
                record.pool_id = pool

    def follow(self, targets: Targets, asked: str | None) -> None:
        """Go where a model alias leads. `asked` is the pool that the request names.
        Raises a `Problem`."""
        self.alias = targets[0]
        self.record.upstream_model = targets[0].upstream_id
        targets = allowed_targets(targets, self.principal, asked)
        if len(targets) > 1:
            # Each session has an order of its own, on all gateways.
            targets = in_order(targets, self.session or self.record.id)
            self.targets = TargetOrder(targets)
        self.go_to(targets[0])

    def go_to(self, target: AliasTarget) -> None:
        """Go to a target of the model alias."""
        self.alias = target
        self.head = b""  # it named another pool
        record, hints = self.record, self.hints
        record.upstream_model, record.pool_id = target.upstream_id, target.pool
        self.session = session_within(hints.session_id, target.pool, self.asker.tenant)
        # The upstream limits its own model, whatever the alias is called.
        self.hints = hints.sent_to(target.pool, target.upstream_id)

    def stay_at(self, provider_id: str | None) -> None:
        """Prefer targets of the provider that the request's WebSocket leads to."""
        if self.targets is not None:
            self.targets.on_socket = True
            self.targets.prefer(provider_id)
            self.go_to(self.targets.current)

    def name_model(self, plain: bytes, scan: Scan | None) -> None:
        """Send `plain`, the opened body, with the target's name of the model. Raises a
        `Problem`."""
        if self.targets is not None:
            self.targets.source = plain, scan
        assert self.alias is not None
        body = with_alias_model(plain, self.alias, scan)
        self.rewrite(body, plain=plain is not self.body)

    def turn_to(self, target: AliasTarget) -> None:
        """Go to another target, with the body as it came."""
        if self.alias is not target:
            self.go_to(target)
            assert self.targets is not None
            self.name_model(*self.targets.source)

    def isolate(self, plain: bytes, *, strict: bool) -> None:
        """Note which ids the request must be allowed to name. `plain`: its body,
        opened. Raises a `Problem`."""
        request, hints, route = self.request, self.hints, None
        tenant = self.asker.tenant
        if strict:
            usual = isolation.plain_asker(tenant, hints, request, self.path)
            if usual is not None:
                self.asker, self.ids = usual, ()
                return
            route = endpoints.route_of(request.method, self.path)
            isolation.check_body(route, hints, request, plain)
        asker, ids = isolation.asker_of(tenant, hints, route, strict=strict)
        self.names(route, asker, ids)

    def names(self, route: Route | None, asker: Asker, ids: tuple[str, ...]) -> None:
        """Note which ids the request must be allowed to name."""
        self.route, self.asker, self.ids = route, asker, ids

    def begin_turn(self, now: float, now_ms: int) -> None:
        """An upgrade becomes the first turn of its socket."""
        self.began = now
        self.record.created_at_ms = now_ms

    def recorded(self, head: bytes, tokens: int | None = None) -> None:
        """The ledger has it; `head` is the JSON of its lease. `tokens`: how many it may
        take of a limit, estimated."""
        self.head, self.tokens = head, tokens

    def queued(self, seconds: float) -> None:
        """It waited in a queue."""
        self.queued_s += seconds

    @property
    def place(self) -> Place:
        """In a queue: it counts to its proxy key, else to its session."""
        principal = self.principal
        if principal is not None:
            return Place(f"key:{principal.id}", 0, principal.queue_weight)
        return Place(f"session:{self.session}" if self.session else "", 0)

    def limit(self, quota: Quota, plain: bytes) -> None:
        """Its key has limits. `plain`: its body, opened. Raises a `Problem`."""
        self.quota = quota
        if quota.reserves:
            method, size = self.record.method, len(plain)
            self.may_use = most_tokens(method, self.path, self.hints, size)

    def release_with(
        self,
        verdict: Verdict | None,
        session: str,
        learned: tuple[str, ...],
        event: bytes | None,
        limits: str,
    ) -> Release:
        """The release of its lease, or the report of an attempt. The release says what
        it used, if that counts to limits of its key."""
        record, quota = self.record, self.quota
        counts, tokens, nanos = None, 0, 0
        if quota is not None and event is not None and self.left is not None:
            tokens, nanos = record.total_tokens or 0, record.cost_nanos or 0
            if tokens < 0:  # noqa: PLR1730 - `max` takes thrice as long
                tokens = 0
            if tokens or nanos or self.may_use:
                counts, heard = quota, quota.heard
                if heard is not None:
                    heard.tokens += tokens
                    if nanos:
                        heard.nanos += nanos
        return Release(
            self.id,
            self.gateway_id,
            record.resource_id or "",
            verdict,
            session,
            learned,
            record.model if self.alias is None else self.alias.upstream_id,
            event,
            self.asker.tenant,
            limits,
            counts,
            tokens,
            nanos,
        )

    @property
    def limits_of_key(self) -> list[Header]:
        """What is left of its key's limits, as headers."""
        if self.quota is None or not self.left:
            return []
        return limit_headers(self.quota, self.left, self.record.created_at_ms)

    @property
    def limit_lines(self) -> bytes:
        """The same as lines of a head."""
        if self.quota is None or not self.left:
            return b""
        return limit_lines(self.quota, self.left, self.record.created_at_ms)

    def head_for(self, target: Target) -> bytes:
        """The head of the request to a target."""
        request, body, headers = self.request, self.body, self.headers
        announced = body or find(headers, b"content-length") is not None
        lines = request.lines if headers is request.headers else None
        request.lines = None  # few requests are sent twice
        return request_head(
            request.method,
            target.path + self.path + request.query,
            target.host,
            target.authorization,
            lines_of(headers) if lines is None else lines,
            len(body) if announced else None,
        )

    def rewrite(self, body: bytes, *, plain: bool) -> None:
        """Send another body. `plain`: it is not compressed any more."""
        self.body = body
        if plain:
            self.headers = [h for h in self.headers if h[0] != b"content-encoding"]

    def sends(self, headers: list[Header]) -> None:
        """Send other headers."""
        self.headers = headers

    def asks_plainly(self) -> None:
        """Ask for the whole answer, not compressed: the gateway changes it."""
        kept = [h for h in self.headers if h[0] not in _OF_PARTS]
        self.headers = [*kept, (b"accept-encoding", b"identity")]

    def served(self, size: int) -> None:
        """The gateway itself knows the answer, which has `size` bytes."""
        record = self.record
        record.outcome, record.status_code = "completed", 200
        record.response_bytes = size

    def unbind(self, body: bytes) -> None:
        """Send a body that every account can read, without the turn state of the
        account that is left (docs/upstream-api.md, Turn state)."""
        self.rewrite(body, plain=True)
        self.headers = [h for h in self.headers if h[0] != _TURN_STATE]
        self.replayed = True
        if self.targets is not None:
            self.targets.source = body, None
        self.bound = self.ids = ()
        # Whose its ids are was checked before.
        self.asker = Asker(self.asker.tenant, self.asker.strict)

    def foreign(self, refused: ForeignId) -> Problem:
        """The answer to a request that names an id of another tenant."""
        problem = not_found(self.ids[refused.which], self.hints, self.route)
        problem.ledger_code = "foreign_id" if refused.known else "unknown_id"
        return problem

    @property
    def account_bound(self) -> bool:
        """Can only one account read the request, until it is rewritten?"""
        return self.hints.account_bound and not self.replayed

    @property
    def may_repeat(self) -> bool:
        """May it be sent again although the upstream may have acted on it?"""
        return may_repeat(self.request.method, self.path, self.hints)

    def ms(self, until: float) -> float:
        """Milliseconds from the arrival. round() would take thrice as long."""
        return int((until - self.began) * 1e6) / 1000
