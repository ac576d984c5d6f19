"""Streams and answers of upstreams, and entries for ingest: all bytes are read without
an exception, with the same result however they are cut."""

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts.events import (
    END_OF_TIME_MS,
    EVENTS,
    LARGEST,
    TEXT_CHARS,
    Outcome,
    RequestEvent,
)
from libs.common.store.dead_letters import content_id
from libs.common.store.interface import DeadLetter
from services.gateway.content import response_facts, sse
from services.gateway.content.response_facts import MOST_LEARNED, Facts
from services.gateway.content.sse import EventTap
from services.ingest import decode as decoding
from tests.fuzz.bounds import CUTS, DAMAGE, FUZZ, damaged, values
from tests.support.clients.wire import cut

KEYS = st.sampled_from(
    ["type", "response", "id", "object", "status", "model", "service_tier", "output",
     "data", "usage", "error", "code", "message", "conversation", "input_tokens",
     "input_tokens_details", "cached_tokens", "total_tokens", "prompt_tokens"]
)  # fmt: skip
JSON = values(KEYS).map(json.dumps).map(str.encode)


LINES = st.one_of(
    JSON.map(lambda data: b"data: " + data),
    st.sampled_from(
        [
            b"event: response.created",
            b"event: response.output_text.delta",
            b"event: response.completed",
            b"event: response.failed",
            b"event: error",
            b"event:",
            b": a comment",
            b"data: [DONE]",
            b'data: {"type":"response.created","response":{"id":"resp_1"}}',
            b'data: {"type":"response.completed","response":{"object":"response"}}',
            b"id: 7",
            b"retry: 5",
            b"",
        ]
    ),
    st.binary(max_size=20),
)
ENDS = st.sampled_from([b"\n", b"\n", b"\n", b"\n\n", b"\n\n", b"\r\n", b"\r\n\r\n"])
STREAMS = st.lists(st.tuples(LINES, ENDS).map(b"".join), max_size=14).map(b"".join)


def told(pieces: tuple[bytes, ...]) -> tuple[object, ...]:
    tap = EventTap()
    fed = 0
    for piece in pieces:
        tap.feed(piece)
        fed += len(piece)
        # A piece is held until its event is complete; the smallest limit is tested.
        assert sum(map(len, tap._held)) <= min(fed, sse.LARGEST_EVENT + len(piece))
    assert tap.terminal in (None, "completed", "failed", "incomplete", "error")
    sane(tap.facts)
    return (
        tap.terminal, tap.facts, tap.first_event, tap.created, tap.saw_token,
        tap.events, tap.mid_event, tap.response_id, tap.model,
    )  # fmt: skip


@FUZZ
@given(STREAMS, DAMAGE, CUTS)
def test_a_stream_cut_anywhere(
    sent: bytes, damage: list[tuple[int, int, bytes]], places: list[int]
) -> None:
    data = damaged(sent, damage)
    whole = told((data,))
    assert told(cut(data, places)) == whole
    assert told(cut(data, range(len(data)))) == whole


def sane(facts: Facts) -> None:
    """Values have the types of their columns, and are bounded."""
    for name in ("response_id", "model", "error_code", "error_message"):
        text = getattr(facts, name)
        assert text is None or (isinstance(text, str) and text)
        (text or "").encode()
    for name in ("input_tokens", "cached_tokens", "output_tokens", "total_tokens"):
        assert getattr(facts, name) is None or type(getattr(facts, name)) is int
    assert len(facts.minted) <= MOST_LEARNED
    assert all(isinstance(id_, str) for id_ in facts.ids)


@FUZZ
@given(st.one_of(JSON, st.binary(max_size=60)), DAMAGE)
def test_facts_of_any_answer(sent: bytes, damage: list[tuple[int, int, bytes]]) -> None:
    data = damaged(sent, damage)
    sane(response_facts.read_answer(data))
    kind, facts = response_facts.read_event(data)
    assert isinstance(kind, str)
    sane(facts)


def test_facts_of_deep_answers() -> None:
    for deep in (
        b"[" * 100_000,
        b'{"output":' * 100_000,
        b'{"error":{"code":' * 50_000,
    ):
        assert response_facts.read_answer(deep) == Facts()
        assert response_facts.read_event(deep)[1] == Facts()


# Ingest -----------------------------------------------------------------------


def _encoded(value: object) -> bytes:
    return json.dumps(value).encode()


NAMES = st.sampled_from(
    sorted({name for event in EVENTS.values() for name in event.__struct_fields__})
)
GOOD = RequestEvent(
    id="r1", created_at_ms=1, method="POST", path="/v1/responses", gateway_id="g",
    completed_at_ms=2, outcome=Outcome.COMPLETED, latency_ms=1.0, attempts=1,
)  # fmt: skip
CHANGES = st.dictionaries(
    NAMES,
    st.one_of(
        values(NAMES),
        st.sampled_from([1e400, 2**53, -1, "x" * 9_000, "\0", ["resp_" + "x" * 900]]),
    ),
    max_size=4,
)
DATA = st.one_of(
    CHANGES.map(lambda c: _encoded({**msgspec.to_builtins(GOOD), **c})),
    values(NAMES).map(_encoded),
    st.binary(max_size=60),
)


KINDS = st.sampled_from([*(k.encode() for k in EVENTS), b"other", b"\xff"])
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        b"kind": KINDS,
        b"id": st.one_of(st.just(b"r1"), st.binary(max_size=300)),
        b"v": st.sampled_from([decoding.VERSION, b"99", b"\xff"]),
        b"data": DATA,
        b"odd": st.binary(max_size=8),
    },
)
WHOLE = st.builds(
    lambda kind, data: {
        b"kind": kind, b"id": b"r1", b"v": decoding.VERSION, b"data": data,
    },
    KINDS, DATA,
)  # fmt: skip


@FUZZ
@given(st.one_of(ENTRIES, WHOLE, WHOLE), DAMAGE)
def test_any_entry_can_be_stored(
    fields: dict[bytes, bytes], damage: list[tuple[int, int, bytes]]
) -> None:
    if b"data" in fields:
        fields = {**fields, b"data": damaged(fields[b"data"], damage)}
    read = decoding.decode("1-0", fields)
    if isinstance(read, DeadLetter):
        assert read.id == content_id(fields)
        for text in (read.reason, read.data, read.kind, read.event_id):
            assert "\0" not in (text or "")
            (text or "").encode()
        assert len(read.data) <= decoding.KEPT_DATA_CHARS
        return
    for name, value in msgspec.structs.asdict(read.event).items():
        if isinstance(value, str):
            assert "\0" not in value
            value.encode()
            assert len(value) <= TEXT_CHARS
        elif isinstance(value, int | float) and not isinstance(value, bool):
            assert -LARGEST <= value <= END_OF_TIME_MS * 100, name
    assert read.data is None or read.data == fields[b"data"]
