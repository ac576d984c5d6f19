"""What a relayed answer makes of its request, and says about its resource."""

from dataclasses import dataclass

import msgspec
import pytest

from libs.common.contracts.events import RequestEvent
from services.gateway.content.response_facts import Facts, read_answer
from services.gateway.ledger.record import Record
from services.gateway.proxy.outcome import outcome_of, take_facts, verdict_of


@dataclass
class Answer:
    status: int = 200
    terminal: str | None = None
    torn: bool = False
    streams: bool = True
    bytes_out: int = 10
    first_token_at: float | None = None
    error_code: str | None = None

    def facts(self) -> Facts:
        return Facts(error_code=self.error_code)


def record(outcome: str | None = None, error_code: str | None = None) -> Record:
    made = Record("r", 1, "POST", "/v1/responses", "gw")
    made.outcome, made.error_code, made.upstream_ms = outcome, error_code, 5.0
    return made


@pytest.mark.parametrize(
    ("answer", "outcome", "verdict"),
    [
        pytest.param(Answer(), "completed", "ok", id="JSON"),
        pytest.param(Answer(torn=True), "failed", "fault", id="cut"),
        pytest.param(Answer(400), "failed", "neutral", id="400"),
        pytest.param(Answer(400, torn=True), "failed", "neutral", id="400, cut"),
        pytest.param(Answer(terminal="completed"), "completed", "ok", id="completed"),
        pytest.param(Answer(terminal="incomplete"), "completed", "ok", id="incomplete"),
        pytest.param(
            Answer(terminal="failed", error_code="server_error"), "failed", "fault",
            id="failed",
        ),
        pytest.param(
            Answer(terminal="failed", error_code="rate_limit_exceeded"), "failed",
            "limited", id="failed, limited",
        ),
        pytest.param(
            Answer(terminal="error", error_code="invalid_prompt"), "failed", "neutral",
            id="failed, the client's fault",
        ),
    ],
)  # fmt: skip
def test_the_end_of_an_answer_is_an_outcome_and_a_verdict(
    answer: Answer, outcome: str, verdict: str
) -> None:
    assert outcome_of(None, answer) == outcome
    assert verdict_of(record(outcome, answer.error_code), answer).kind == verdict


@pytest.mark.parametrize("before", ["cancelled", "interrupted"])
def test_who_ends_an_answer_early_is_to_blame(before: str) -> None:
    answer = Answer(torn=True)
    assert outcome_of(before, answer) == before
    assert verdict_of(record(before), answer).kind == "neutral"


def test_a_client_that_leaves_after_the_terminal_event_has_completed() -> None:
    answer = Answer(terminal="completed")
    assert outcome_of("cancelled", answer) == "completed"


def test_a_verdict_carries_the_latency() -> None:
    assert verdict_of(record("completed"), Answer()).latency_ms == 5.0


def test_a_finished_record_is_a_request_event() -> None:
    finished = record()
    finished.completed_at_ms, finished.outcome = 2, "completed"
    take_facts(
        finished,
        read_answer(
            b'{"id":"resp_1","object":"response","model":"m","service_tier":"default",'
            b'"usage":{"input_tokens":3,"output_tokens":4,"total_tokens":7,'
            b'"input_tokens_details":{"cached_tokens":1}}}'
        ),
    )
    event = msgspec.json.decode(msgspec.json.encode(finished), type=RequestEvent)
    assert (event.response_id, event.usage_state) == ("resp_1", "final")
    assert (event.input_tokens, event.cached_tokens, event.total_tokens) == (3, 1, 7)


def test_usage_stays_unknown_without_usage() -> None:
    unfinished = record()
    take_facts(
        unfinished, read_answer(b'{"id":"resp_1","object":"response","usage":null}')
    )
    assert unfinished.usage_state == "unknown"
