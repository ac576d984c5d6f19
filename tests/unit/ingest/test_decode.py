"""Entries as bytes, damaged in every way."""

import json
from typing import Any

import msgspec
import pytest

from libs.common.contracts.events import (
    END_OF_TIME_MS,
    ID_CHARS_MAX,
    TEXT_CHARS,
    DecisionEvent,
    RequestEvent,
    StreamedEvent,
    encode,
)
from libs.common.store.interface import DeadLetter
from services.ingest.decode import (
    KEPT_DATA_CHARS,
    MAX_DATA_BYTES,
    dead_letter,
    decode,
)
from tests.support.values.telemetry import (
    decision_event,
    gateway_event,
    health_event,
    registry_event,
    request_event,
    streamed,
)

ENTRY = "1700000000123-0"


def entry(**given: Any) -> dict[bytes, bytes]:
    """The four fields of a request's entry; `data` members may be given."""
    data = {**msgspec.to_builtins(request_event("r")), **given}
    return {b"kind": b"request", b"id": b"r", b"v": b"1", b"data": _json(data)}


def _json(data: Any) -> bytes:
    return json.dumps(data).encode()


def stored(fields: dict[bytes, bytes]) -> RequestEvent:
    decoded = decode(ENTRY, fields)
    assert isinstance(decoded, StreamedEvent), decoded
    assert isinstance(decoded.event, RequestEvent)
    return decoded.event


@pytest.mark.parametrize(
    "event",
    [
        request_event(),
        decision_event(),
        health_event(),
        registry_event(),
        gateway_event(),
    ],
)
def test_every_kind_is_read_as_it_was_written(event: Any) -> None:
    written = streamed(event)
    fields = {
        b"kind": written.kind.encode(),
        b"id": written.id.encode(),
        b"v": b"1",
        b"data": encode(event),
    }
    read = decode(written.entry_id, fields)
    assert read == msgspec.structs.replace(written, data=fields[b"data"])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({}, "missing field: data, id, kind, v", id="empty"),
        pytest.param({**entry(), b"v": b"2"}, "unknown version '2'", id="version"),
        pytest.param({**entry(), b"kind": b"gossip"}, "unknown kind", id="kind"),
        pytest.param({**entry(), b"id": b""}, "id is empty", id="no id"),
        pytest.param({**entry(), b"id": b"\xff"}, "id is not UTF-8", id="id bytes"),
        pytest.param({**entry(), b"id": b"x" * 201}, "exceeds 200", id="long id"),
        pytest.param(
            {**entry(), b"id": b"other"}, "differs from the id of the request", id="id"
        ),
        pytest.param({**entry(), b"data": b"{"}, "data: Input", id="JSON"),
        pytest.param({**entry(), b"data": b'"\xff"'}, "data: 'utf-8'", id="not UTF-8"),
        pytest.param(
            {**entry(), b"data": b'{"\\u0000'}, "data: Input", id="NUL and no JSON"
        ),
        pytest.param({**entry(), b"data": b"[]"}, "object", id="a list"),
        pytest.param(entry(surprise=1), "unknown field `surprise`", id="unknown field"),
        pytest.param(
            entry(outcome="lost"),
            "at `$.outcome`",
            id="unknown outcome",
        ),
        pytest.param(entry(method=None), "got `null` - at `$.method`", id="null"),
        pytest.param(entry(total_tokens=2**53), "at `$.total_tokens`", id="tokens"),
        pytest.param(entry(total_tokens=2**80), "total_tokens", id="beyond bigint"),
        pytest.param(entry(status_code=2**31), "at `$.status_code`", id="int32"),
        pytest.param(entry(created_at_ms=-1), "at `$.created_at_ms`", id="past"),
        pytest.param(entry(completed_at_ms=10**15), "completed_at_ms", id="future"),
        pytest.param(entry(latency_ms=float("inf")), "data: JSON", id="infinite"),
        pytest.param(entry(latency_ms=float("nan")), "data: JSON", id="NaN"),
        pytest.param(
            {**entry(), b"data": b" " * (MAX_DATA_BYTES + 1)}, "bytes, more", id="huge"
        ),
        pytest.param(
            {**entry(), b"data": b'{"a":' * 5000 + b'"\\u0000"'}, "", id="deep"
        ),
    ],
)
def test_poison_says_why(fields: dict[bytes, bytes], reason: str) -> None:
    poison = decode(ENTRY, fields)
    assert isinstance(poison, DeadLetter)
    assert reason in poison.reason
    assert poison.reason
    assert poison.entry_id == ENTRY
    assert poison.created_at_ms == 1700000000123


def test_nul_is_taken_out_of_text() -> None:
    fields = entry(session_id="a\0b", error_message="\\u0000 stays\0")
    event = stored(fields)
    assert event.session_id == "ab"
    assert event.error_message == "\\u0000 stays"


def test_a_decision_of_an_earlier_version_has_no_cause() -> None:
    data = msgspec.to_builtins(decision_event(attempt=2, cause="timeout"))
    fields = {b"kind": b"decision", b"id": b"d", b"v": b"1", b"data": _json(data)}
    del data["cause"]
    before = fields | {b"data": _json(data)}
    for entry_fields, cause in ((fields, "timeout"), (before, None)):
        decoded = decode(ENTRY, entry_fields)
        assert isinstance(decoded, StreamedEvent)
        assert isinstance(decoded.event, DecisionEvent)
        assert decoded.event.cause == cause


def test_nul_is_taken_out_of_candidates() -> None:
    data = msgspec.to_builtins(decision_event(resource_id="a"))
    data["candidates"][0]["refused"] = "x\0y"
    fields = {b"kind": b"decision", b"id": b"d", b"v": b"1", b"data": _json(data)}
    decoded = decode(ENTRY, fields)
    assert isinstance(decoded, StreamedEvent)
    assert isinstance(decoded.event, DecisionEvent)
    assert decoded.event.candidates[0].refused == "xy"


def test_long_text_is_cut_rather_than_refused() -> None:
    event = stored(entry(session_id="s" * 5000, error_message="e" * 9000))
    assert event.session_id == "s" * ID_CHARS_MAX
    assert event.error_message == "e" * TEXT_CHARS


def test_minted_ids_that_nobody_could_look_up_are_left_out() -> None:
    longest = "msg_".ljust(ID_CHARS_MAX, "x")
    event = stored(entry(minted=["resp_1", longest, longest + "x", "rs_\0 1"]))
    assert event.minted == ("resp_1", longest, "rs_ 1")


def test_a_dead_letter_of_an_id_in_the_far_future_can_be_stored() -> None:
    found = dead_letter(f"{2**64 - 1}-0", {}, "odd")
    assert found.created_at_ms == END_OF_TIME_MS - 1


def test_a_dead_letter_can_always_be_stored() -> None:
    fields = {b"kind": b"\xff", b"id": b"a\0", b"data": b"\0\xff" + b"x" * 99_999}
    letter = dead_letter(ENTRY, fields, "because\0")
    assert letter.reason == "because"
    assert letter.kind == "\\xff"
    assert letter.event_id == "a"
    assert letter.data.startswith("\\xffx")
    assert len(letter.data) == KEPT_DATA_CHARS


def test_the_same_poison_has_the_same_id() -> None:
    first = dead_letter("1-0", {b"id": b"a", b"data": b"x"}, "")
    again = dead_letter("2-0", {b"data": b"x", b"id": b"a"}, "other")
    other = dead_letter("1-0", {b"id": b"ax", b"data": b""}, "")
    assert first.id == again.id
    assert first.id != other.id


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b'{"gateway_id":"gw-1","attempts":"x"}', "gw-1", id="told"),
        pytest.param(b'{"gateway_id": "gw-1"', "gw-1", id="truncated behind it"),
        pytest.param(b'{"gateway_id":"gw-', None, id="truncated in it"),
        pytest.param(b'{"gateway_id":7}', None, id="no text"),
        pytest.param(b"\xff", None, id="nothing to read"),
    ],
)
def test_poison_is_counted_for_the_gateway_it_came_from(
    data: bytes, expected: str | None
) -> None:
    fields = {b"kind": b"request", b"id": b"r", b"v": b"1", b"data": data}
    assert dead_letter(ENTRY, fields, "bad").gateway_id == expected
