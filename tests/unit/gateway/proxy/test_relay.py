"""Relaying an answer: every byte arrives, its facts do not depend on cuts, and a client
gets an error that it understands when the upstream breaks off."""

import asyncio
import gzip
import json
import zlib
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.headers import NO_KINDS, Header
from services.gateway.capture.recorder import Budget, Capture
from services.gateway.content.response_facts import Facts
from services.gateway.proxy.relay import LARGEST_READ, Relay, Torn, death_notice
from services.gateway.server.connection import Connection
from services.gateway.server.request import Request
from services.gateway.upstream.errors import UpstreamError
from services.gateway.upstream.response import Answer, Interrupted, Slow, TimedOut
from tests.support.memory.clock import settled, timeless
from tests.support.memory.sites import OpenSite
from tests.support.memory.transports import Wire, cut_at, cut_in_two, cuts

EVENTS: Header = (b"content-type", b"text/event-stream; charset=utf-8")
JSON: Header = (b"content-type", b"application/json")


def event(kind: str, **more: Any) -> bytes:
    data = json.dumps({"type": kind} | more).encode()
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


CREATED = event(
    "response.created",
    sequence_number=0,
    response={"id": "resp_1", "object": "response", "model": "m", "output": []},
)
DELTA = event("response.output_text.delta", delta="hello")
COMPLETED = event(
    "response.completed",
    response={
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "model": "m-2026",
        "output": [{"id": "msg_1"}],
        "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
    },
)
STREAM = CREATED + DELTA + DELTA + COMPLETED


class Source:
    """The upstream's connection."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.said: list[str] = []

    def rest(self) -> None:
        self.said.append("rest")

    def read_on(self) -> None:
        self.said.append("read on")

    def abort(self) -> None:
        self.said.append("abort")

    def end_within(self, seconds: float) -> None:
        self.said.append("end soon")


class Talk(OpenSite):
    """A client's request, and the upstream's answer that is relayed to it."""

    def __init__(
        self, *headers: Header, status: int = 200, capture: Capture | None = None
    ) -> None:
        super().__init__()
        self.source = Source()
        self.answer = Answer(self.source, status, list(headers))
        self.ends: list[bytes] = []  # what was sent when all was known
        self.raised: Exception | None = None
        self.connection = Connection(self, asyncio.get_running_loop())
        self.wire = Wire(self.connection)
        self.relay = Relay(self.answer, self.connection, self._ended, capture)
        self.wire.feed(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")

    def _ended(self) -> None:
        self.ends.append(self.wire.sent)

    async def serve(self, request: Request, connection: Connection) -> None:
        try:
            await self.relay.run(b"x-proxy-reason: r\r\n")
        except Exception as error:  # noqa: BLE001 - a test looks at it
            self.raised = error
        connection.over()

    @property
    def body(self) -> bytes:
        """The body that the client received, without framing."""
        body, rest = b"", self.wire.sent.partition(b"\r\n\r\n")[2]
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            body += rest[: int(size, 16)]
            rest = rest[int(size, 16) + 2 :]
        return body


async def relayed(
    pieces: list[bytes], *headers: Header, end: UpstreamError | None = None
) -> Talk:
    talk = Talk(*headers)
    await settled()
    for piece in pieces:
        talk.answer.feed(piece, last=False)
    if end is None:
        talk.answer.feed(b"", last=True)
    else:
        talk.answer.fail(end)
    await settled()
    return talk


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


FACTS = Facts(
    response_id="resp_1",
    status="completed",
    model="m-2026",
    input_tokens=3,
    output_tokens=4,
    total_tokens=7,
    minted=("resp_1", "msg_1"),
)


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
async def test_the_time_of_the_first_token_is_kept() -> None:
    talk = Talk(EVENTS)
    await settled()
    times = []
    for piece in (CREATED, DELTA, DELTA):
        talk.answer.feed(piece, last=False)
        times.append(talk.relay.first_token_at)
    assert times[0] is None
    assert times[1] == times[2] is not None


@timeless
async def test_the_books_are_closed_before_the_client_sees_the_end() -> None:
    talk = await relayed([b'{"id":"x"}'], JSON)
    assert len(talk.ends) == 1
    assert talk.wire.sent.startswith(talk.ends[0])
    assert not talk.ends[0].endswith(b"0\r\n\r\n")
    talk = Talk(EVENTS)
    await settled()
    talk.answer.feed(STREAM, last=False)
    assert talk.ends[0].count(COMPLETED) == 0
    assert talk.body == STREAM


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
    kept = capture.raw().response
    assert kept is not None
    assert b"".join(kept.chunks) == gzip.compress(b"{}") == talk.body
    assert capture.response_kinds == (b"application/json", b"gzip")


# Facts -------------------------------------------------------------------------

ANSWER = (
    b'{"id":"resp_1","object":"response","status":"completed","model":"m-2026",'
    b'"output":[{"id":"msg_1"}],'
    b'"usage":{"input_tokens":3,"output_tokens":4,"total_tokens":7}}'
)


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        pytest.param(None, ANSWER, id="plain"),
        pytest.param(b"identity", ANSWER, id="identity"),
        pytest.param(b"gzip", gzip.compress(ANSWER), id="gzip"),
        pytest.param(b"deflate", zlib.compress(ANSWER), id="deflate"),
        pytest.param(b"zstd", zstandard.compress(ANSWER), id="zstd"),
    ],
)
@timeless
async def test_facts_are_read_through_a_coding_which_stays(
    coding: bytes | None, packed: bytes
) -> None:
    headers = [JSON] + ([(b"content-encoding", coding)] if coding else [])
    middle = len(packed) // 2
    talk = await relayed([packed[:middle], packed[middle:]], *headers)
    assert talk.body == packed
    assert talk.relay.facts() == FACTS


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param([JSON, (b"content-encoding", b"br")], ANSWER, id="unknown coding"),
        pytest.param([JSON, (b"content-encoding", b"gzip")], ANSWER, id="no gzip"),
        pytest.param([(b"content-type", b"audio/wav")], ANSWER, id="another type"),
        pytest.param([], ANSWER, id="no type"),
        pytest.param([JSON], b"no JSON", id="no JSON"),
        pytest.param([JSON], b"", id="empty"),
    ],
)
@timeless
async def test_what_cannot_be_read_passes_all_the_same(
    headers: list[Header], body: bytes
) -> None:
    talk = await relayed([body], *headers)
    assert talk.body == body
    assert talk.relay.facts() == Facts()


@pytest.mark.parametrize(
    ("beginning", "facts"),
    [
        pytest.param(ANSWER, Facts("resp_1", minted=("resp_1",)), id="an id first"),
        pytest.param(b'{"object":"list"', Facts(), id="no id"),
    ],
)
@timeless
async def test_of_a_long_answer_the_beginning_alone_is_read(
    beginning: bytes, facts: Facts
) -> None:
    large = b" " * (LARGEST_READ // 2)
    talk = await relayed([beginning, large, large], JSON)
    assert talk.relay.facts() == facts
    assert talk.relay.bytes_out == len(beginning) + 2 * len(large)


@timeless
async def test_a_stream_that_was_cut_still_names_its_response() -> None:
    talk = await relayed([CREATED + DELTA], EVENTS, end=Interrupted("x"))
    facts = talk.relay.facts()
    assert (facts.response_id, facts.model) == ("resp_1", "m")
    assert (facts.error_code, facts.error_message) == (
        "server_error",
        "The upstream broke off.",
    )


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


@timeless
async def test_a_fault_of_ours_in_passing_is_raised_where_the_answer_is_awaited() -> (
    None
):
    talk = Talk(JSON)

    def broken() -> None:
        raise RuntimeError("ours")

    talk.relay = Relay(talk.answer, talk.connection, broken)
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
    kept = capture.raw().response
    assert kept is not None
    assert b"".join(kept.chunks) == talk.body


# The notice itself -------------------------------------------------------------


@given(created=st.binary(max_size=30) | st.sampled_from([
    b'{"response":1}', b'{"response":null}', b"[]", b"1", b"{}", b'{"response":{}}',
]))  # fmt: skip
def test_whatever_was_created_the_notice_is_well_formed(created: bytes) -> None:
    notice = death_notice(created, 5, 'it "died"\n')
    frames = notice.split(b"\n\n")
    assert frames.pop() == b""
    assert len(frames) == (1 if created else 2)
    for number, frame in enumerate(frames, 5):
        kind, data = frame.split(b"\n")
        content = json.loads(data.removeprefix(b"data: "))
        assert kind == b"event: " + content["type"].encode()
        assert content["sequence_number"] == number
    assert content["response"]["error"]["message"] == 'it "died"\n'
