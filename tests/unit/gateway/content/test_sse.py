"""Events are read the same however the stream's bytes are cut."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.content.sse import EventTap

USAGE = {
    "input_tokens": 7,
    "input_tokens_details": {"cached_tokens": 3},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 12,
}


def frame(kind: str, **data: object) -> bytes:
    body = json.dumps({"type": kind, **data}).encode()
    return b"event: " + kind.encode() + b"\ndata: " + body + b"\n\n"


STREAM = b"".join(
    [
        frame("response.created", response={"id": "resp_1", "object": "response"}),
        frame("response.output_text.delta", delta="Hi \n\n there"),
        b": a comment\n\n",
        frame(
            "response.completed",
            response={
                "id": "resp_1",
                "object": "response",
                "model": "m-1",
                "output": [{"id": "msg_1"}, {"id": "rs_1"}],
                "usage": USAGE,
            },
        ),
    ]
)


def read(chunks: list[bytes]) -> EventTap:
    tap = EventTap()
    for chunk in chunks:
        tap.feed(chunk)
    return tap


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(st.lists(st.integers(0, 10_000), max_size=30), st.booleans())
def test_any_cut_reads_the_same(places: list[int], crlf: bool) -> None:
    data = STREAM.replace(b"\n", b"\r\n") if crlf else STREAM
    tap = read(cut(data, places))
    assert tap.terminal == "completed"
    assert tap.saw_token
    assert tap.response_id == "resp_1"
    assert tap.facts.minted == ("resp_1", "msg_1", "rs_1")
    assert (tap.facts.cached_tokens, tap.facts.total_tokens) == (3, 12)
    assert not tap.mid_event


DELTAS = [
    frame("response.output_text.delta", delta="a"),
    frame("response.output_text.delta", delta="b"),
    frame("response.reasoning_text.delta", delta="c"),
    b"event: response.output_text.delta\n\n",
    b'event: response.output_text.delta\ndata: {"type":\ndata: "x"}\n\n',
    b"event: response.output_text.delta \ndata: {}\n\n",
    frame("response.refusal.delta", delta="d"),
    frame("response.output_text.delta", delta="e"),
    frame("response.output_text.delta", delta="f"),
]


@given(st.lists(st.integers(0, 10_000), max_size=30), st.booleans())
def test_each_event_counts_however_it_is_skipped(places: list[int], crlf: bool) -> None:
    data = STREAM.replace(
        b"event: response.completed", b"".join([*DELTAS, b"event: x"])
    )
    tap = read(cut(data.replace(b"\n", b"\r\n") if crlf else data, places))
    assert (tap.events, tap.terminal, tap.mid_event) == (3 + len(DELTAS), None, False)
    tap.feed(frame("response.failed"))
    assert (tap.events, tap.terminal) == (4 + len(DELTAS), "failed")


@pytest.mark.parametrize(
    "data",
    [
        b'data: {"type": "error",\ndata: "code": "c"}',
        b'event: error\ndata: {"type": "error",\ndata: "code": "c"}',
        b'event: error\nid: 1\ndata: {"code": "c"}',
        b'event: error\ndata:{"code": "c"} ',
        b'\nevent: error\ndata: {"code": "c"}',
    ],
)
def test_an_event_may_have_several_lines(data: bytes) -> None:
    assert read([data + b"\n\n"]).facts.error_code == "c"


def test_byte_by_byte() -> None:
    assert read([bytes([b]) for b in STREAM]).terminal == "completed"


@pytest.mark.parametrize(
    ("stream", "terminal"),
    [
        pytest.param(STREAM[:-1], None, id="last event not ended"),
        pytest.param(frame("response.failed", response={}), "failed", id="failed"),
        pytest.param(frame("response.incomplete"), "incomplete", id="incomplete"),
        pytest.param(frame("error", code="x"), "error", id="flat error"),
        pytest.param(
            b'data: {"type": "response.completed"}\n\n', "completed", id="no event line"
        ),
        pytest.param(b"data: [DONE]\n\n", None, id="done"),
        pytest.param(b"event: response.completed\n\n", "completed", id="no data"),
    ],
)
def test_terminal(stream: bytes, terminal: str | None) -> None:
    assert read([stream]).terminal == terminal


def test_error_event_gives_its_code() -> None:
    tap = read([frame("error", code="server_error", message="no")])
    assert (tap.facts.error_code, tap.facts.error_message) == ("server_error", "no")


def test_an_endless_event_is_not_kept() -> None:
    tap = EventTap()
    tap.feed(b"event: response.output_text.delta\ndata: ")
    for _ in range(40):
        tap.feed(b"x" * 1_000_000)
    assert sum(map(len, tap._held)) <= 32_000_000
    tap.feed(b"\n\n" + frame("response.failed"))
    assert tap.terminal == "failed"
