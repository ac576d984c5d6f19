"""The state machine of a turn: what it asks of routing, and how its attempts count."""

from datetime import UTC, datetime

import pytest

from libs.common.bodies.hints import Hints
from libs.common.routing.types import Decision
from libs.common.upstream_answers.verdicts import Verdict
from services.gateway import errors
from services.gateway.content.response_facts import Facts
from services.gateway.errors import Problem
from services.gateway.ledger.record import Record
from services.gateway.proxy.steps import Failure, Phase
from services.gateway.proxy.turn_lifecycle import TurnLifecycle
from services.gateway.server.request import Request
from services.gateway.upstream.errors import Broken

CHAINED = Hints(previous_response_id="resp_1", bound_ids=("resp_1",))


def now() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


def turn(hints: Hints = CHAINED) -> TurnLifecycle:
    request = Request("GET", b"/v1/responses", [])
    record = Record("r", 1, "WS", "/v1/responses", "gw", transport="ws")
    life = TurnLifecycle(request, record, 10.0)
    life.admit(b"/responses", hints, None)
    return life


def test_an_upgrade_has_no_socket_yet() -> None:
    ask = turn().ask(1, "d", 0)
    assert (ask.socket, ask.turn) == ("", "")


@pytest.mark.parametrize(
    ("hints", "confined", "letters"),
    [(Hints(), False, ""), (CHAINED, False, "c"), (CHAINED, True, "s")],
)
def test_a_turn_asks_for_the_resource_of_its_socket(
    hints: Hints, confined: bool, letters: str
) -> None:
    life = turn(hints)
    life.on_socket("a", confined=confined)
    ask = life.ask(1, "d", 0)
    assert (ask.socket, ask.turn, ask.previous) == ("a", letters, "")
    assert ask.chained is bool(letters)


@pytest.mark.parametrize(("chosen", "attempts"), [("a", 2), ("b", 3)])
def test_a_first_turn_has_the_decision_of_its_upgrade(
    chosen: str, attempts: int
) -> None:
    life = turn(Hints())
    life.acquired(Decision("z", "weighted_least_connections", "v"), "account", 1)
    life.another(Verdict(kind="refused"), "key_refused")
    life.acquired(Decision("a", "weighted_least_connections", "v"), "account", 2)
    life.begin_turn(11.0, 1)
    life.on_socket("a")
    ask = life.ask(3, "d", 0)
    # The lease of the upgrade is gone, and so is the cause of its second decision.
    assert (ask.turn, ask.cause) == ("d", "")
    assert life.lease() is None
    life.acquired(Decision(chosen, "socket", "v"), "account", 3)
    assert life.record.attempts == attempts
    assert life.made == attempts - 1
    assert life.ask(4, "e", 0).turn == ""


def test_after_a_failed_attempt_the_client_gets_the_upstreams_error() -> None:
    life = turn()
    life.refused(errors.no_capacity(1), first=True)
    assert life.problem is not None
    life = turn()
    life.failure = Failure(500, [], b"{}")
    life.resent_elsewhere()
    life.refused(errors.no_capacity(1), first=True)
    assert life.problem is None


@pytest.mark.parametrize("unanswered", [False, True])
def test_a_first_turn_remembers_what_its_upgrade_met(unanswered: bool) -> None:
    life, busy = turn(Hints()), Failure(503, [], b"{}")
    life.acquired(Decision("a", "weighted_least_connections", "v"), "account", 1)
    if unanswered:
        life.unopened(Broken("it broke"))
    else:
        life.rejected(busy, Facts(error_code="busy"), now)
    life.acquired(Decision("b", "weighted_least_connections", "v"), "account", 2)
    life.begin_turn(11.0, 1)
    life.on_socket("b")
    dead = Failure(401, [], b"{}")
    life.rejected(dead, Facts(error_code="invalid_api_key"), now)
    assert life.failure is (None if unanswered else busy)
    assert life.record.error_code == (None if unanswered else "busy")


@pytest.mark.parametrize(
    ("hints", "again"), [(CHAINED, True), (Hints(bound_ids=("conv_1",)), False)]
)
def test_a_frame_may_be_sent_again_unless_it_adds_to_a_conversation(
    hints: Hints, again: bool
) -> None:
    life = turn(hints)
    assert life.may_repeat  # the upgrade
    life.on_socket("a")
    assert life.may_repeat is again


def test_a_turn_ends_with_its_event() -> None:
    life = turn()
    life.acquired(Decision("a", "socket", "v"), "account", 1)
    life.sent(10.5)
    life.received(5, 10.25)
    life.received(6, 10.5)
    facts = Facts("resp_9", input_tokens=1, total_tokens=3)
    life.concluded("completed", facts, Verdict(kind="ok"), 200)
    record = life.record
    assert (record.first_token_ms, record.response_bytes) == (250.0, 11)
    assert (record.status_code, record.total_tokens) == (200, 3)
    assert life.phase is Phase.RELAYED


@pytest.mark.parametrize("problem", [None, errors.no_capacity(1)])
def test_a_turn_has_no_error_of_an_attempt_before(problem: Problem | None) -> None:
    life = turn()
    life.acquired(Decision("a", "socket", "v"), "account", 1)
    life.rejected(Failure(500, [], b"{}"), Facts(error_code="c"), now)
    assert life.record.error_code == "c"
    life.acquired(Decision("b", "socket", "v"), "account", 2)
    if problem is not None:
        life.answers(problem)
    life.concluded("completed", Facts())
    told = None if problem is None else problem.ledger_code
    assert life.record.error_code == told
