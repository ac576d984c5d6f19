"""Relaying an answer: every byte arrives, its facts do not depend on cuts, and a client
gets an error that it understands when the upstream breaks off."""

import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import given, settings

from libs.common.headers import NO_KINDS, Header
from libs.common.providers.key_echoes import SentKey
from services.gateway.capture.capture import Budget, Capture
from services.gateway.proxy.relay import COMMENT, Torn
from services.gateway.upstream.errors import Interrupted, Slow, TimedOut, UpstreamError
from tests.support.memory.clock import settled, timeless
from tests.support.memory.relays import (
    COMPLETED,
    CREATED,
    DELTA,
    EVENTS,
    FACTS,
    JSON,
    STREAM,
    Talk,
    relayed,
)
from tests.support.memory.transports import cut_at, cut_in_two, cuts


def told(talk: Talk) -> list[dict[str, Any]]:
    """The events that the client received."""
    return [
        json.loads(line[6:])
        for line in talk.body.split(b"\n")
        if line.startswith(b"data: ")
    ]


# What passes -------------------------------------------------------------------


@timeless
async def test_an_answer_passes_with_our_lines_in_its_head() -> None:
    talk = await relayed([b'{"id":', b'"x"}'], JSON)
    assert talk.wire.sent.startswith(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-proxy-reason: r\r\n"
    )
    assert talk.body == b'{"id":"x"}'
    assert (talk.relay.bytes_out, talk.raised, talk.relay.torn) == (10, None, False)


@timeless
async def test_an_answer_that_came_whole_passes_without_the_key() -> None:
    key = "sk-proj-" + "k" * 32
    capture = Capture(b"", NO_KINDS, 100, Budget(10_000))
    talk = Talk(JSON, capture=capture, sent=SentKey(key))
    body = b'{"id":"%b"}' % key.encode()
    talk.answer.feed(body, last=True)
    await settled()
    assert talk.raised is None
    assert talk.body == SentKey(key).masked(body)
    assert len(talk.body) == talk.relay.bytes_out == len(body)
    assert capture.response_body() == talk.body
    assert talk.relay.whole


async def passes_whole(pieces: list[bytes]) -> None:
    talk = await relayed(pieces, EVENTS)
    assert talk.body == b"".join(pieces) == STREAM
    assert talk.relay.terminal == "completed"
    assert talk.relay.facts() == FACTS
    assert talk.relay.first_token_at is not None
    assert not talk.relay.torn


@timeless
async def test_a_stream_is_understood_wherever_it_is_cut() -> None:
    await passes_whole([STREAM])
    for first, second in cut_in_two(STREAM):
        await passes_whole([first, second])


@settings(max_examples=40, deadline=None)
@given(positions=cuts(len(STREAM)))
def test_a_stream_is_understood_in_any_pieces(positions: list[int]) -> None:
    @timeless
    async def run() -> None:
        await passes_whole(cut_at(STREAM, positions))

    run()


@timeless
async def test_the_settlement_comes_before_the_last_bytes() -> None:
    talk = await relayed([b'{"id":"x"}'], JSON)
    assert len(talk.ends) == 1
    assert talk.wire.sent.startswith(talk.ends[0])
    assert not talk.ends[0].endswith(b"0\r\n\r\n")
    talk = Talk(EVENTS)
    await settled()
    talk.answer.feed(STREAM, last=False)
    await settled()
    assert talk.ends[0].count(COMPLETED) == 0
    assert talk.body == STREAM
    talk.answer.feed(b": behind it", last=True)
    await settled()
    assert talk.wire.sent.endswith(b"0\r\n\r\n")


@timeless
async def test_what_comes_before_the_settlement_is_sent_with_the_last_bytes() -> None:
    talk = Talk(EVENTS)
    await settled()
    talk.answer.feed(STREAM, last=False)
    talk.answer.feed(b": more", last=False)
    talk.answer.feed(b": end", last=True)
    assert talk.wire.sent.endswith(b"\r\n\r\n")
    await settled()
    assert talk.body == STREAM + b": more: end"


@timeless
async def test_the_head_of_a_stream_does_not_wait_for_an_event() -> None:
    talk = Talk(EVENTS)
    await settled()
    assert talk.wire.sent.startswith(b"HTTP/1.1 200 OK")


@timeless
async def test_the_head_of_another_answer_travels_with_its_body() -> None:
    talk = Talk(JSON)
    await settled()
    assert talk.wire.sent == b""
    talk.answer.feed(b"{}", last=True)
    await settled()
    assert len(talk.wire.writes) == 1


@timeless
async def test_an_answer_that_is_there_already_needs_no_wait() -> None:
    talk = Talk(JSON)
    talk.answer.feed(b"{}", last=True)
    await settled()
    assert (talk.body, talk.raised) == (b"{}", None)


@timeless
async def test_a_slow_client_slows_its_upstream_down() -> None:
    talk = Talk(EVENTS)
    await settled()
    talk.connection.pause_writing()
    talk.answer.feed(DELTA, last=False)
    talk.connection.resume_writing()
    assert talk.source.said == ["rest", "read on"]


@timeless
async def test_a_capture_keeps_what_passed_and_what_it_was() -> None:
    capture = Capture(b"", NO_KINDS, 10_000, Budget(1_000_000))
    talk = Talk(JSON, (b"content-encoding", b"gzip"), capture=capture)
    await settled()
    talk.answer.feed(gzip.compress(b"{}"), last=True)
    await settled()
    capture.end("r", 1)
    assert capture.response_body() == gzip.compress(b"{}") == talk.body
    assert capture.response_kinds == (b"application/json", b"gzip")


# Deaths ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "says"),
    [
        pytest.param(Interrupted("x"), "The upstream broke off.", id="broke"),
        pytest.param(TimedOut("x"), "The upstream took too long.", id="time is up"),
        pytest.param(Slow("x"), "The upstream took too long.", id="silent"),
        pytest.param(None, "The upstream's stream ended early.", id="ended"),
    ],
)
@pytest.mark.parametrize(
    "pieces",
    [[CREATED], [CREATED + DELTA], [CREATED, DELTA[:20]]],
    ids=["created", "a token", "in an event"],
)
@timeless
async def test_a_stream_without_an_end_gets_one(
    pieces: list[bytes], end: UpstreamError | None, says: str
) -> None:
    talk = await relayed(pieces, EVENTS, end=end)
    sent = b"".join(pieces)
    assert talk.body.startswith(sent)
    added = talk.body[len(sent) :]
    assert added.startswith(b"\n\nevent:" if DELTA[:20] in pieces else b"event:")
    failed = json.loads(added.partition(b"data: ")[2])
    assert (failed["type"], failed["response"]["id"]) == ("response.failed", "resp_1")
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": says}
    assert failed["sequence_number"] == sent.count(b"\n\n")
    assert (talk.relay.torn, talk.raised) == (True, None)
    assert talk.wire.sent.endswith(b"0\r\n\r\n")  # the connection may be used on
    assert len(talk.ends) == 1


@timeless
async def test_a_stream_that_died_before_its_first_byte_is_begun_and_ended() -> None:
    talk = await relayed([], EVENTS, end=Interrupted("x"))
    created, failed = told(talk)
    assert (created["type"], failed["type"]) == ("response.created", "response.failed")
    assert (created["sequence_number"], failed["sequence_number"]) == (0, 1)
    assert created["response"]["status"] == "in_progress"
    assert created["response"]["id"] == failed["response"]["id"] == "resp_unknown"


@timeless
async def test_a_stream_that_breaks_after_its_end_is_whole() -> None:
    talk = await relayed([STREAM], EVENTS, end=Interrupted("x"))
    assert talk.body == STREAM
    assert talk.raised is None
    assert talk.wire.sent.endswith(b"0\r\n\r\n")


@timeless
async def test_a_stream_of_another_kind_may_end_as_it_likes() -> None:
    chunks = b'data: {"choices":[]}\n\ndata: [DONE]\n\n'
    talk = await relayed([chunks], EVENTS)
    assert (talk.body, talk.relay.torn) == (chunks, False)


@pytest.mark.parametrize(
    ("headers", "piece"),
    [
        pytest.param([JSON], b'{"id":', id="JSON"),
        pytest.param([JSON], b"", id="JSON, nothing sent"),
        pytest.param([EVENTS], b'data: {"choices":[]}\n\n', id="another stream"),
        pytest.param(
            [EVENTS, (b"content-encoding", b"gzip")], gzip.compress(CREATED),
            id="a packed stream",
        ),
    ],
)  # fmt: skip
@timeless
async def test_who_cannot_be_told_in_the_answer_sees_it_break(
    headers: list[Header], piece: bytes
) -> None:
    talk = await relayed([piece], *headers, end=Interrupted("x"))
    assert isinstance(talk.raised, Torn)
    assert talk.relay.torn
    assert talk.wire.aborted
    assert not talk.wire.sent.endswith(b"0\r\n\r\n")
    assert talk.relay.facts().error_message == "The upstream broke off."


@timeless
async def test_a_packed_stream_that_ends_early_breaks() -> None:
    packed = gzip.compress(CREATED)
    talk = await relayed([packed], EVENTS, (b"content-encoding", b"gzip"))
    assert isinstance(talk.raised, Torn)
    assert talk.wire.aborted
    assert packed in talk.wire.sent


@timeless
async def test_of_a_stream_that_cannot_be_opened_the_end_is_believed() -> None:
    packer = zlib.compressobj(wbits=31)
    begun = packer.compress(CREATED) + packer.flush(zlib.Z_SYNC_FLUSH)
    talk = await relayed([begun, b"\xff" * 9], EVENTS, (b"content-encoding", b"gzip"))
    assert (talk.raised, talk.relay.torn) == (None, False)
    assert talk.body == begun + b"\xff" * 9


@timeless
async def test_a_restart_is_told_in_the_stream() -> None:
    talk = Talk(EVENTS)
    await settled()
    talk.answer.feed(CREATED, last=False)
    talk.relay.cut("This gateway restarts.")
    await settled()
    assert told(talk)[-1]["response"]["error"]["message"] == "This gateway restarts."
    assert talk.raised is None


@timeless
async def test_a_restart_after_the_terminal_event_adds_nothing() -> None:
    talk = Talk(EVENTS)
    await settled()
    talk.answer.feed(STREAM, last=False)
    talk.relay.cut("This gateway restarts.")
    await settled()
    assert talk.body == STREAM
    assert talk.wire.sent.endswith(b"0\r\n\r\n")


@pytest.mark.interpreted
@timeless
async def test_a_fault_of_ours_in_passing_is_raised_where_the_answer_is_awaited() -> (
    None
):
    class Broken(Capture):
        __slots__ = ()

        def keep(self, chunk: bytes) -> None:
            raise RuntimeError("ours")

    talk = Talk(JSON, capture=Broken(b"", NO_KINDS, 10, Budget(1000)))
    await settled()
    talk.answer.feed(b"{}", last=True)
    await settled()
    assert isinstance(talk.raised, RuntimeError)
    assert talk.wire.aborted


@timeless
async def test_a_cut_keeps_what_the_client_was_told_in_the_capture() -> None:
    capture = Capture(b"", NO_KINDS, 10_000, Budget(1_000_000))
    talk = Talk(EVENTS, capture=capture)
    await settled()
    talk.answer.feed(CREATED, last=False)
    talk.answer.fail(Interrupted("x"))
    await settled()
    capture.end("r", 1)
    assert capture.response_body() == talk.body


# Keepalives --------------------------------------------------------------------


@timeless
async def test_a_silent_stream_gets_a_comment_between_its_events() -> None:
    talk = Talk(EVENTS)
    await settled()
    talk.relay.keep_alive()  # notes what was sent so far
    talk.relay.keep_alive()
    assert talk.body == COMMENT
    talk.answer.feed(CREATED, last=False)
    talk.relay.keep_alive()  # it was not silent
    assert talk.body == COMMENT + CREATED
    talk.relay.keep_alive()
    assert talk.body == COMMENT + CREATED + COMMENT
    counted = talk.relay.bytes_out
    assert counted == len(CREATED)
    talk.answer.feed(DELTA[:9], last=False)
    talk.relay.keep_alive()
    talk.relay.keep_alive()  # within an event
    talk.answer.feed(DELTA[9:] + COMPLETED, last=True)
    await settled()
    talk.relay.keep_alive()
    talk.relay.keep_alive()  # after the end
    assert talk.body.removesuffix(DELTA + COMPLETED) == COMMENT + CREATED + COMMENT


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param((JSON,), id="no stream"),
        pytest.param((EVENTS, (b"content-encoding", b"gzip")), id="packed"),
        pytest.param((EVENTS, (b"content-length", b"99")), id="of a known length"),
    ],
)
@timeless
async def test_no_other_answer_gets_a_comment(headers: tuple[Header, ...]) -> None:
    talk = Talk(*headers)
    await settled()
    for _ in range(3):
        talk.relay.keep_alive()
    assert talk.wire.sent.partition(b"\r\n\r\n")[2] == b""
