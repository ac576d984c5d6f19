"""The state of one request."""

import msgspec
import pytest

from libs.common.bodies.hints import Hints
from libs.common.proxy_keys import Principal
from libs.common.routing.types import Decision, digest, session_digest
from services.gateway.errors import Problem
from services.gateway.proxy.context import Exchange
from services.gateway.server.request import Request

HINTS = Hints(
    model="m",
    session_id="s",
    session_name="name",
    pool_id="p",
    previous_response_id="resp_1",
    bound_ids=("resp_1", "msg_1"),
    account_bound=True,
)
DECISION = Decision("a", "session_affinity", "v", trial=True, degraded=True)


def exchange(hints: Hints = HINTS) -> Exchange:
    request = Request("POST", b"/v1/responses?x", [(b"content-encoding", b"zstd")])
    request.body = b"12345"
    made = Exchange(request, "gw")
    made.take(hints)
    return made


def test_what_a_request_says_is_in_its_record() -> None:
    made = exchange()
    record = made.record
    assert (record.method, record.path, record.gateway_id) == (
        "POST",
        "/v1/responses",
        "gw",
    )
    assert (record.model, record.session_id, record.session_name) == ("m", "s", "name")
    assert (record.pool_id, record.previous_response_id) == ("p", "resp_1")
    assert record.request_bytes == 5
    assert made.accepted


def test_routing_is_asked_by_digests() -> None:
    ask = exchange().ask(1, 7)
    assert (ask.session, ask.session_id) == (session_digest("s"), "s")
    assert ask.bound == (digest("resp_1"), digest("msg_1"))
    assert (ask.attempt, ask.draw, ask.account_bound) == (1, 7, True)
    assert (ask.cause, ask.previous, ask.replayed) == ("", "", False)


def test_a_later_attempt_says_what_ended_the_one_before() -> None:
    made = exchange()
    made.goes_to(DECISION, "account", 1)
    made.cause, made.tried = "rate_limited", ("a",)
    ask = made.ask(2, 7)
    assert (ask.attempt, ask.previous, ask.tried) == (2, "a", ("a",))
    assert ask.cause == "rate_limited"


def test_the_lease_of_a_first_attempt_is_the_head_that_was_written() -> None:
    made = exchange()
    made.head = b'{"as":"written"'
    assert made.ask(1, 0).lease == b'{"as":"written"'
    assert made.ask(2, 0).lease != b'{"as":"written"'


def test_a_request_that_was_rewritten_is_bound_to_nobody() -> None:
    made = exchange()
    made.unbind(b"{}")
    ask = made.ask(2, 0)
    assert (ask.bound, ask.account_bound, ask.replayed) == ((), False, True)
    assert (made.body, made.headers) == (b"{}", [])


@pytest.mark.parametrize(
    ("principal", "pool"),
    [
        pytest.param(None, "p", id="anybody"),
        pytest.param(Principal(id="k"), "p", id="any pool"),
        pytest.param(Principal(id="k", pool_id="q"), "q", id="pinned"),
    ],
)
def test_a_key_may_decide_the_pool(principal: Principal | None, pool: str) -> None:
    made = exchange()
    made.comes_from(principal)
    assert (made.hints.pool_id, made.record.pool_id) == (pool, pool)
    assert made.record.proxy_key_id == (principal.id if principal else None)


def test_another_pool_than_the_keys_is_refused() -> None:
    with pytest.raises(Problem) as refused:
        exchange().comes_from(Principal(id="k", pools=("q",)))
    assert refused.value.code == "pool_not_allowed"


def test_a_lease_is_held_from_the_decision_to_the_end() -> None:
    made = exchange()
    held = [made.lease()]
    made.goes_to(DECISION, "account", 1)
    lease = made.lease()
    assert lease is not None
    assert (lease.request_id, lease.resource_id) == (made.record.id, "a")
    assert msgspec.json.decode(lease.record)["account_id"] == "account"
    made.settled = True
    held.append(made.lease())
    assert held == [None, None]


def test_the_client_is_told_what_was_done() -> None:
    made = exchange()
    assert [name for name, _ in made.ours()] == [
        b"x-proxy-request-id",
        b"x-proxy-attempts",
    ]
    made.goes_to(DECISION, "account", 2)
    told = b"".join(b"%b: %b\r\n" % header for header in made.ours())
    assert told == made.our_lines()
    assert b"x-proxy-reason: session_affinity\r\n" in told
    assert (made.trial, made.alone) == (True, True)


def test_time_is_counted_from_the_arrival() -> None:
    made = exchange()
    assert made.ms(made.began + 0.0123456) == 12.345
    assert made.ms() >= 0
