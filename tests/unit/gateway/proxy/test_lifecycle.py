"""The state machine of a request: each path is a table of calls, without a loop or a
socket."""

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest

from libs.common.bodies.hints import Hints
from libs.common.headers import Header
from libs.common.proxy_keys import Principal
from libs.common.routing.types import Asker, Decision, digest, session_digest
from libs.common.upstream_answers.verdicts import Verdict
from services.gateway import errors
from services.gateway.content.response_facts import Facts
from services.gateway.errors import Problem
from services.gateway.ledger.record import Record
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.proxy.steps import Failure, Next, Phase
from services.gateway.server.request import Request
from services.gateway.upstream.client import Broken, NoKey, TimedOut, UpstreamError
from services.gateway.upstream.errors import NoFreeConnection

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
REJECTED = Facts(error_code="invalid_encrypted_content", error_message="x")


class Answer:
    """An answer that was relayed whole."""

    status = 200
    bytes_out = 7
    streams = False
    torn = False
    first_token_at: float | None = 10.25
    terminal: str | None = None

    def facts(self) -> Facts:
        return Facts(
            "resp_9", minted=("resp_9", "msg_9"), total_tokens=3, input_tokens=1
        )


def now() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


def arrived(body: bytes = b"12345", method: str = "POST") -> Lifecycle:
    request = Request(method, b"/v1/responses?x", [(b"content-encoding", b"zstd")])
    request.body = body
    record = Record("r", 1, method, "/v1/responses", "gw")
    return Lifecycle(request, record, 10.0)


def admitted(hints: Hints = HINTS, principal: Principal | None = None) -> Lifecycle:
    life = arrived()
    life.admit(b"/responses", hints, principal)
    return life


def sent(hints: Hints = HINTS, attempt: int = 1) -> Lifecycle:
    life = admitted(hints)
    life.acquired(DECISION, "account", attempt)
    life.sent(10.5)
    return life


def failure(status: int, *headers: Header) -> Failure:
    return Failure(status, list(headers), b"{}")


# Admission -------------------------------------------------------------------


def test_routing_is_asked_by_digests() -> None:
    ask = admitted().ask(1, "d", 7)
    assert (ask.session, ask.session_id) == (session_digest("s"), "s")
    assert ask.bound == (digest("resp_1"), digest("msg_1"))
    assert (ask.attempt, ask.draw, ask.account_bound) == (1, 7, True)
    assert (ask.cause, ask.previous, ask.replayed) == ("", "", False)


def test_the_lease_of_a_first_attempt_is_the_head_that_was_journaled() -> None:
    life = admitted()
    life.recorded(b'{"as":"written"')
    assert life.ask(1, "d", 0).lease == b'{"as":"written"'
    assert life.ask(2, "d", 0).lease != b'{"as":"written"'


def test_a_request_for_another_pool_than_the_keys_gets_a_row_and_an_error() -> None:
    life = arrived()
    with pytest.raises(Problem) as refused:
        life.admit(b"/responses", HINTS, Principal(id="k", pools=("q",)))
    assert refused.value.code == "pool_not_allowed"
    assert life.phase is Phase.ADMITTED


def test_a_request_that_was_rewritten_is_bound_to_no_account() -> None:
    life = admitted()
    life.names(None, Asker("t", True, "nr"), ("resp_1", "msg_1"))
    life.unbind(b"{}")
    ask = life.ask(2, "d", 0)
    assert (ask.bound, ask.account_bound, ask.replayed) == ((), False, True)
    assert (life.body, life.headers, life.ids) == (b"{}", [], ())
    assert ask.asker == Asker("t", True)


# Attempts --------------------------------------------------------------------


def test_a_request_goes_through_its_phases() -> None:
    life = arrived()
    phases = [life.phase]
    steps: list[Callable[[], object]] = [
        lambda: life.admit(b"/responses", HINTS, None),
        lambda: life.acquired(DECISION, "account", 1),
        lambda: life.sent(10.5),
        lambda: life.relayed(Answer()),
        lambda: life.ended(11.0, 2000),
    ]
    for step in steps:
        step()
        phases.append(life.phase)
    assert phases == sorted(Phase)


def test_times_are_counted_from_the_arrival() -> None:
    life = sent()
    life.heard(10.75)
    assert (life.record.overhead_ms, life.record.upstream_ms) == (500.0, 250.0)
    life.sent(12.0)
    assert life.record.overhead_ms == 500.0  # of the first attempt


@pytest.mark.parametrize(
    ("status", "method", "step"),
    [
        (200, "POST", Next.RELAY),
        (399, "POST", Next.RELAY),
        (400, "POST", Next.READ),
        (503, "POST", Next.READ),
        (404, "HEAD", Next.RELAY),
    ],
)
def test_errors_are_read_whole(status: int, method: str, step: Next) -> None:
    assert arrived(method=method).answered(status) is step


@pytest.mark.parametrize(
    ("error", "verdict", "cause"),
    [
        (Broken("x"), "fault", "connection_lost"),
        (NoKey(), "neutral", "no_key"),
        (NoFreeConnection(), "neutral", "no_free_connection"),
    ],
)
def test_an_attempt_without_an_answer_is_repeated_elsewhere(
    error: UpstreamError, verdict: str, cause: str
) -> None:
    life = sent()
    assert life.failed(error) is Next.ACQUIRE
    assert life.phase is Phase.ADMITTED
    assert (life.verdict.kind, life.tried, life.cause) == (verdict, ("a",), cause)
    ask = life.ask(2, "d", 0)
    assert (ask.attempt, ask.previous, ask.tried) == (2, "a", ("a",))


def test_when_time_is_up_nothing_is_repeated() -> None:
    life = sent()
    assert life.failed(TimedOut("x"), 60.0) is Next.ANSWER
    assert life.problem is not None
    assert life.problem.status == 504
    assert life.verdict.kind == "fault"


@pytest.mark.parametrize(
    ("status", "step", "verdict"),
    [
        (401, Next.ACQUIRE, "refused"),
        (429, Next.ACQUIRE, "limited"),
        (500, Next.ACQUIRE, "fault"),
        (404, Next.ANSWER, "neutral"),
    ],
)
def test_some_errors_send_the_request_elsewhere(
    status: int, step: Next, verdict: str
) -> None:
    life = sent()
    assert life.rejected(failure(status), Facts(error_code="c"), now) is step
    assert life.verdict.kind == verdict
    assert (life.phase is Phase.ADMITTED) == (step is Next.ACQUIRE)
    assert life.record.error_code == "c"


@pytest.mark.parametrize(
    ("hints", "step"), [(HINTS, Next.REWRITE), (Hints(), Next.ANSWER)]
)
def test_reasoning_of_another_account_is_removed(hints: Hints, step: Next) -> None:
    life = sent(hints)
    assert life.rejected(failure(400), REJECTED, now) is step
    life.unbind(b"{}")
    life.readable_again()
    assert life.tried == ()
    life.acquired(DECISION, "account", 2)
    assert life.rejected(failure(400), REJECTED, now) is Next.ANSWER


def test_a_verdict_belongs_to_one_attempt() -> None:
    life = sent()
    life.failed(Broken("x"))
    life.reported()
    life.acquired(DECISION, "account", 2)
    assert (life.judged, life.verdict.kind) == (False, "neutral")
    assert life.released(Verdict(kind="ok")).event is None


@pytest.mark.parametrize(
    ("problem", "first", "failed", "answered"),
    [
        pytest.param(errors.no_resources(), True, None, True, id="at once"),
        pytest.param(errors.no_resources(), False, 500, False, id="after a failure"),
        pytest.param(errors.no_capacity(1), False, 500, False, id="no capacity"),
        pytest.param(errors.owner_limited(1), False, 401, True, id="waiting helps"),
        pytest.param(
            errors.owner_unavailable(method="POST", encrypted=False), False, 500, True,
            id="its account is gone",
        ),
    ],
)  # fmt: skip
def test_a_client_gets_what_tells_it_most(
    problem: Problem, first: bool, failed: int | None, answered: bool
) -> None:
    life = sent()
    if failed is not None:
        life.rejected(failure(failed), Facts(), now)
    assert life.refused(problem, first=first) is Next.ANSWER
    assert (life.problem is problem) == answered


def test_the_last_error_is_passed_on() -> None:
    life = sent()
    life.rejected(failure(500), Facts(), now)
    assert life.passes_on().status == 500
    assert (life.record.status_code, life.record.outcome) == (500, "failed")


def test_without_an_answer_the_upstream_is_unreachable() -> None:
    life = sent()
    life.failed(Broken("it closed the connection"))
    with pytest.raises(Problem) as refused:
        life.passes_on()
    assert refused.value.status == 502
    assert "it closed the connection" in refused.value.message


DIED = {401: "invalid_api_key", 403: "country", 429: "insufficient_quota"}
BROKEN, STALE = Broken("it broke"), Broken("it was closed")
STALE.reused = True


@pytest.mark.parametrize(
    ("attempts", "told"),
    [
        pytest.param([503, 401], 503, id="a fault"),
        pytest.param([503, 403], 503, id="403"),
        pytest.param([503, 429], 503, id="no money"),
        pytest.param([503, 401, 401], 503, id="more dead keys"),
        pytest.param([401, 503, 401], 503, id="in the middle"),
        pytest.param([503, 500, 401], 500, id="the last that passes"),
        pytest.param([BROKEN, 401], 502, id="no answer"),
        pytest.param([BROKEN, 401, 401], 502, id="no answer, more dead keys"),
        pytest.param([NoFreeConnection(), 401], 502, id="no free connection"),
        pytest.param([401, BROKEN], 502, id="no answer at last"),
        pytest.param([401, BROKEN, 401], 502, id="no answer in the middle"),
        pytest.param([503, BROKEN, 401], 503, id="an answer and none"),
        pytest.param([401, 503], 503, id="a fault at last"),
        pytest.param([401, 403], 403, id="only dead keys"),
        pytest.param([401, 429], 429, id="only dead keys, no money at last"),
        pytest.param([429, 401], 401, id="only dead keys, no money at first"),
        pytest.param([NoKey(), 401], 401, id="a key that is not there"),
        pytest.param([401, NoKey()], 401, id="a key that is not there at last"),
        pytest.param([STALE, 401], 401, id="a closed connection"),
        pytest.param([503, 404], 404, id="an error of the client"),
    ],
)
def test_clients_are_told_of_a_dead_key_only_if_nothing_else_failed(
    attempts: list[int | UpstreamError], told: int
) -> None:
    life = sent()
    for number, attempt in enumerate(attempts, start=1):
        life.acquired(DECISION, "account", number)
        if isinstance(attempt, UpstreamError):
            life.failed(attempt)
            assert life.error_status is None
        else:
            facts = Facts(error_code=DIED.get(attempt, f"{attempt}"))
            life.rejected(failure(attempt), facts, now)
            assert life.error_status == attempt
    record = life.record
    try:
        life.passes_on()
        assert record.error_code == DIED.get(told, f"{told}")
    except Problem as problem:
        life.answers(problem)
        assert record.error_code == "upstream_unreachable"
    assert (record.status_code, record.outcome) == (told, "failed")
    assert record.attempts == len(attempts)


def test_a_rate_limit_is_told_with_its_wait_instead_of_a_dead_key() -> None:
    life, wait = sent(), (b"retry-after", b"7")
    life.rejected(failure(429, wait), Facts(error_code="slow"), now)
    life.rejected(failure(401), Facts(error_code="invalid_api_key"), now)
    told = life.passes_on()
    assert (told.status, told.headers) == (429, [wait])
    # The cause is that of the last attempt: the next decision records it.
    assert (life.cause, life.record.error_code) == ("key_refused", "slow")


def test_a_socket_that_does_not_open_forgets_the_error_before() -> None:
    life = sent()
    life.rejected(failure(500), Facts(), now)
    assert life.unopened(Broken("x")) is Next.ACQUIRE
    assert life.failure is None


# The end ---------------------------------------------------------------------


def test_a_relayed_answer_is_in_the_record() -> None:
    life = sent()
    life.record.error_code = life.record.error_message = "of a 429 before"
    life.relayed(Answer())
    record = life.record
    assert (record.status_code, record.response_bytes, record.transport) == (
        200,
        7,
        "http",
    )
    assert (record.outcome, record.first_token_ms) == ("completed", 250.0)
    assert (record.error_code, record.error_message) == (None, None)
    assert (life.verdict.kind, record.minted) == ("ok", ("resp_9", "msg_9"))


def test_ids_of_errors_are_not_learned() -> None:
    life, answer = sent(), Answer()
    answer.status = 400
    life.relayed(answer)
    assert life.ended(11.0, 1).learned == ()


def test_a_client_that_did_not_read_says_nothing_about_the_resource() -> None:
    life = sent()
    life.relayed(Answer(), stalled=True)
    assert (life.record.outcome, life.record.error_code) == ("failed", "client_stalled")
    assert life.verdict.kind == "neutral"


def test_a_settlement_releases_the_lease_with_the_event() -> None:
    life = sent()
    life.relayed(Answer())
    release = life.ended(11.0, 2000)
    assert (release.request_id, release.resource_id, release.session) == (
        "r",
        "a",
        session_digest("s"),
    )
    assert release.learned == (digest("resp_9"), digest("msg_9"))
    event = msgspec.json.decode(release.event or b"")
    assert (event["latency_ms"], event["completed_at_ms"]) == (1000.0, 2000)
    assert (life.phase, life.lease()) == (Phase.SETTLED, None)


def test_a_verdict_that_was_reported_is_not_repeated() -> None:
    life = sent()
    life.failed(Broken("x"))
    life.reported()
    assert life.ended(11.0, 1).verdict is None


def test_a_failed_request_binds_no_session() -> None:
    release = sent().ended(11.0, 1)
    assert (release.session, release.learned) == ("", ())
    assert b'"outcome":"failed"' in (release.event or b"")


def test_a_stale_connection_is_no_fault_of_the_resource() -> None:
    life, stale = sent(), Broken("x")
    stale.reused = True
    assert life.failed(stale) is Next.ACQUIRE
    assert (life.cause, life.tried, life.verdict.kind) == (
        "stale_connection",
        (),
        "neutral",
    )
    assert life.phase is Phase.ADMITTED
    # Nothing was heard of an upstream: what routing says counts.
    life.refused(errors.no_capacity(1), first=False)
    assert life.problem is not None


@pytest.mark.parametrize(
    ("path", "error", "step"),
    [
        (b"/responses", Broken("x"), Next.ACQUIRE),
        (b"/conversations", Broken("x"), Next.ANSWER),
        (b"/conversations", NoFreeConnection(), Next.ACQUIRE),
        (b"/conversations", NoKey(), Next.ACQUIRE),
    ],
)
def test_what_may_have_had_an_effect_is_not_sent_again(
    path: bytes, error: UpstreamError, step: Next
) -> None:
    life = arrived()
    life.admit(path, Hints(), None)
    life.acquired(DECISION, "account", 1)
    life.sent(10.5)
    assert life.failed(error) is step
    told = life.problem.code if life.problem else None
    assert told == ("upstream_unreachable" if step is Next.ANSWER else None)


def test_a_cancelled_or_interrupted_request_says_so() -> None:
    life = sent()
    life.cancelled()
    assert life.record.outcome == "cancelled"
    life.interrupted(503, "gateway_restarts")
    assert (life.record.outcome, life.record.status_code) == ("interrupted", 503)
    assert life.record.error_code == "gateway_restarts"


def test_an_error_of_the_gateway_is_in_the_record() -> None:
    life = admitted()
    life.answers(errors.no_resources(), 99)
    record = life.record
    assert (record.outcome, record.status_code, record.response_bytes) == (
        "failed",
        503,
        99,
    )
    assert record.error_code == errors.no_resources().ledger_code


def test_a_lease_is_held_from_the_decision_to_the_settlement() -> None:
    life = admitted()
    assert life.lease() is None
    life.acquired(DECISION, "account", 1)
    lease = life.lease()
    assert lease is not None
    assert (lease.request_id, lease.resource_id) == ("r", "a")
    assert msgspec.json.decode(lease.record)["account_id"] == "account"
    life.ended(1.0, 1)
    assert life.lease() is None


def test_an_account_that_is_gone_is_the_reason() -> None:
    life = sent()
    problem = errors.owner_unavailable(method="POST", encrypted=False)
    life.answers(problem)
    assert life.reason == "affinity_owner_unavailable"
