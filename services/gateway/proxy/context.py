"""What a request says, whose it is, and which ids it may name. Pure."""

import msgspec

from libs.common.bodies.hints import Hints
from libs.common.proxy_keys import Principal
from libs.common.routing.aliases import AliasTarget, session_within
from libs.common.routing.types import ANYBODY, Asker, ForeignId, digest, session_digest
from services.gateway.auth import endpoints, isolation
from services.gateway.auth.endpoints import Route
from services.gateway.auth.isolation import not_found, shared_asker
from services.gateway.auth.pools import pool_for
from services.gateway.errors import Problem
from services.gateway.ledger.record import Record
from services.gateway.routing.model_alias import check_alias
from services.gateway.server.request import Request

_NO_HINTS = Hints()


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
    replayed = False  # rewritten for another account

    def __init__(self, request: Request, record: Record, began: float) -> None:
        self.request = request
        self.headers = request.headers
        self.body = request.body
        self.record = record
        self.began = began  # seconds of time.perf_counter

    def take(
        self,
        path: bytes,
        hints: Hints,
        principal: Principal | None,
        alias: AliasTarget | None = None,
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
                self.hints = msgspec.structs.replace(hints, pool_id=pool)
                record.pool_id = pool

    def follow(self, alias: AliasTarget, asked: str | None) -> None:
        """Go where a model alias leads. `asked` is the pool that the request names.
        Raises a `Problem`."""
        self.alias = alias
        self.head = b""  # it named another pool
        record, hints = self.record, self.hints
        record.upstream_model = alias.upstream_id
        check_alias(alias, self.principal, asked)
        record.pool_id = alias.pool
        self.session = session_within(hints.session_id, alias.pool, self.asker.tenant)
        # The upstream limits its own model, whatever the alias is called.
        self.hints = msgspec.structs.replace(
            hints, pool_id=alias.pool, model=alias.upstream_id
        )

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

    def recorded(self, head: bytes) -> None:
        """The ledger has it; `head` is the JSON of its lease."""
        self.head = head

    def rewrite(self, body: bytes, *, plain: bool) -> None:
        """Send another body. `plain`: it is not compressed any more."""
        self.body = body
        if plain:
            self.headers = [h for h in self.headers if h[0] != b"content-encoding"]

    def unbind(self, body: bytes) -> None:
        """Send a body that every account can read."""
        self.rewrite(body, plain=True)
        self.replayed = True
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

    def ms(self, until: float) -> float:
        """Milliseconds from the arrival. round() would take thrice as long."""
        return int((until - self.began) * 1e6) / 1000
