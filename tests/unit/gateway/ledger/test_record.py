"""The gateway's events match the contract."""

import msgspec

from libs.common.contracts.events import RequestEvent
from services.gateway.content.response_facts import read_answer
from services.gateway.ledger.record import Record, lease_head


def record() -> Record:
    return Record("r", 1, "POST", "/v1/responses", "gw")


def test_the_record_has_the_fields_of_the_contract() -> None:
    assert set(Record.__struct_fields__) == set(RequestEvent.__struct_fields__)


def test_a_finished_record_is_a_request_event() -> None:
    finished = record()
    finished.completed_at_ms, finished.outcome = 2, "completed"
    finished.take(
        read_answer(
            b'{"id":"resp_1","object":"response","model":"m","service_tier":"default",'
            b'"usage":{"input_tokens":3,"output_tokens":4,"total_tokens":7,'
            b'"input_tokens_details":{"cached_tokens":1}}}'
        )
    )
    event = msgspec.json.decode(msgspec.json.encode(finished), type=RequestEvent)
    assert (event.response_id, event.usage_state) == ("resp_1", "final")
    assert (event.input_tokens, event.cached_tokens, event.total_tokens) == (3, 1, 7)


def test_usage_stays_unknown_without_usage() -> None:
    unfinished = record()
    unfinished.take(read_answer(b'{"id":"resp_1","object":"response","usage":null}'))
    assert unfinished.usage_state == "unknown"


def test_the_lease_is_an_open_object() -> None:
    assert lease_head(record()).startswith(b'{"id":"r"')
    assert not lease_head(record()).endswith(b"}")
