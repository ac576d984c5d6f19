"""What a request says, whose it is, and which ids it may name."""

import msgspec
import pytest

from libs.common.bodies.hints import Hints
from libs.common.headers import Header
from libs.common.proxy_keys import Principal
from libs.common.routing.aliases import AliasTarget, Targets
from libs.common.routing.types import (
    ANYBODY,
    Asker,
    ForeignId,
    Place,
    digest,
    session_digest,
)
from services.gateway.auth.isolation import shared_asker
from services.gateway.errors import Problem
from services.gateway.ledger.record import Record
from services.gateway.proxy.context import RequestContext
from services.gateway.server.request import Request

HINTS = Hints(
    model="m",
    session_id="s",
    session_name="name",
    pool_id="p",
    previous_response_id="resp_1",
    bound_ids=("resp_1", "msg_1"),
    named=("resp_1", "msg_1"),
    account_bound=True,
)
WAY = AliasTarget("fast", "local", "m-8b", "@local", frozenset({"edge", None}))
PATH = b"/responses"
TEAM = Principal(id="k", team_id="t")


def arrived(body: bytes = b"12345", *headers: Header) -> RequestContext:
    given = [(b"content-encoding", b"zstd"), *headers]
    request = Request("POST", b"/v1/responses?x", given)
    request.body = body
    return RequestContext(request, Record("r", 1, "POST", "/v1/responses", "gw"), 10.0)


def taken(
    hints: Hints = HINTS,
    principal: Principal | None = None,
    alias: Targets | None = None,
) -> RequestContext:
    context = arrived()
    context.take(PATH, hints, principal, alias)
    return context


def test_what_a_request_says_is_in_its_record() -> None:
    context = taken()
    record = context.record
    assert (record.model, record.session_id, record.session_name) == ("m", "s", "name")
    assert (record.pool_id, record.previous_response_id) == ("p", "resp_1")
    assert record.request_bytes == 5
    assert context.bound == (digest("resp_1"), digest("msg_1"))
    assert context.session == session_digest("s")
    assert (context.path, context.asker) == (PATH, ANYBODY)


def test_a_request_that_says_nothing_is_bound_to_nothing() -> None:
    context = taken(Hints())
    assert (context.session, context.bound, context.ids) == ("", (), ())


def test_a_request_of_a_key_is_its_tenants() -> None:
    context = taken(principal=TEAM)
    assert (context.record.proxy_key_id, context.record.team_id) == ("k", "t")
    assert context.asker == shared_asker(TEAM.tenant, False)
    assert context.session == session_digest("s", TEAM.tenant) != session_digest("s")


def test_what_a_request_counts_to_in_a_queue() -> None:
    heavy = msgspec.structs.replace(TEAM, queue_weight=2.5)
    assert taken(principal=TEAM).place == Place("key:k", 0, 1)
    assert taken(principal=heavy).place == Place("key:k", 0, 2.5)
    assert taken().place == Place(f"session:{session_digest('s')}", 0)
    assert taken(Hints()).place == Place("", 0)


def test_time_in_queues_adds_up() -> None:
    context = taken()
    context.queued(0.5)
    context.queued(0.25)
    assert context.queued_s == 0.75


@pytest.mark.parametrize(
    ("principal", "pool"),
    [
        pytest.param(None, "p", id="no key"),
        pytest.param(Principal(id="k"), "p", id="any pool"),
        pytest.param(Principal(id="k", pool_id="q"), "q", id="pinned"),
    ],
)
def test_a_key_may_decide_the_pool(principal: Principal | None, pool: str) -> None:
    context = taken(principal=principal)
    assert (context.hints.pool_id, context.record.pool_id) == (pool, pool)
    assert context.record.proxy_key_id == (principal.id if principal else None)


# Model aliases -----------------------------------------------------------------


def test_an_alias_changes_pool_model_and_home() -> None:
    context = taken(Hints(model="fast", session_id="s"), alias=(WAY,))
    assert (context.hints.pool_id, context.hints.model) == ("@local", "m-8b")
    assert (context.record.model, context.record.upstream_model) == ("fast", "m-8b")
    assert context.session not in ("", session_digest("s"))


def test_an_alias_that_is_refused_is_in_the_record() -> None:
    context = arrived()
    with pytest.raises(Problem):
        context.take(PATH, Hints(pool_id="other"), None, (WAY,))
    assert context.record.upstream_model == "m-8b"


def test_an_alias_replaces_the_lease_that_was_journaled() -> None:
    context = taken(Hints(model="fast"))
    context.recorded(b'{"pool":"of the request"')
    context.follow((WAY,), None)
    assert context.head == b""


# Isolation ---------------------------------------------------------------------


def test_a_shared_gateway_checks_the_ids_that_somebody_may_own() -> None:
    context = taken(principal=TEAM)
    context.isolate(b"{}", strict=False)
    assert context.ids == ("resp_1", "msg_1")
    assert (context.asker.tenant, context.asker.strict) == (TEAM.tenant, False)
    assert context.route is None


@pytest.mark.parametrize(
    ("hints", "ids"),
    [
        pytest.param(Hints(), (), id="usual"),
        pytest.param(HINTS, ("resp_1", "msg_1"), id="with ids"),
    ],
)
def test_a_strict_gateway_checks_every_id(hints: Hints, ids: tuple[str, ...]) -> None:
    context = taken(hints, TEAM)
    context.request.content_type = b"application/json"
    context.isolate(b'{"input":"x"}', strict=True)
    assert set(context.ids) == set(ids)
    assert context.asker.strict
    assert (context.route is not None) == bool(ids)


def test_a_strict_gateway_refuses_routes_that_it_does_not_know() -> None:
    context = arrived()
    context.take(b"/odd", HINTS, TEAM)
    with pytest.raises(Problem):
        context.isolate(b"", strict=True)


@pytest.mark.parametrize(
    ("known", "code"), [(True, "foreign_id"), (False, "unknown_id")]
)
def test_a_foreign_id_is_answered_like_an_unknown_one(known: bool, code: str) -> None:
    problem = taken().foreign(ForeignId(0, known=known))
    assert (problem.status, problem.ledger_code) == (400, code)
    assert problem.code == "previous_response_not_found"


# Rewriting ---------------------------------------------------------------------


@pytest.mark.parametrize(("plain", "kept"), [(True, 0), (False, 1)])
def test_a_rewritten_body_may_be_plain(plain: bool, kept: int) -> None:
    context = taken()
    context.rewrite(b"{}", plain=plain)
    assert (context.body, len(context.headers)) == (b"{}", kept)


def test_a_request_that_was_rewritten_is_bound_to_no_account() -> None:
    context = taken()
    assert context.account_bound
    context.names(None, Asker("t", True, "nr"), ("resp_1", "msg_1"))
    context.unbind(b"{}")
    assert (context.account_bound, context.replayed) == (False, True)
    assert (context.bound, context.ids, context.headers) == ((), (), [])
    assert context.asker == Asker("t", True)


def test_a_request_that_was_rewritten_leaves_its_turn_state() -> None:
    stays = (b"x-codex-window-id", b"w")
    context = arrived(b"{}", (b"x-codex-turn-state", b"t"), stays)
    context.unbind(b"{}")
    assert context.headers == [stays]


def test_an_upgrade_becomes_the_first_turn() -> None:
    context = taken()
    context.begin_turn(20.0, 5000)
    assert (context.began, context.record.created_at_ms) == (20.0, 5000)
    assert context.ms(20.5) == 500.0
