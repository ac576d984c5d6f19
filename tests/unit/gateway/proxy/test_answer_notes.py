"""What is noted of an answer in passing, whatever its pieces and its coding."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Iterator

import pytest
import zstandard

from libs.common.headers import Header
from services.gateway.content.response_facts import Facts
from services.gateway.proxy.answer_notes import LARGEST_READ, LOOK
from services.gateway.upstream.errors import Interrupted
from tests.support.memory.clock import settled, timeless
from tests.support.memory.relays import (
    ANSWER,
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


# Large answers -----------------------------------------------------------------

LONG = b"x" * (3 * LOOK)


@pytest.mark.parametrize("behind", [0, 5])
@timeless
async def test_a_large_json_answer_is_read_in_steps(behind: int) -> None:
    large = ANSWER[:-1] + b',"text":"' + LONG + LONG + b'"}'
    edge = len(large) - behind
    talk = await relayed([large[:9], large[9:edge], large[edge:]], JSON)
    assert talk.body == large
    assert talk.relay.facts() == FACTS


@timeless
async def test_a_large_terminal_event_is_read_in_steps() -> None:
    end = COMPLETED.replace(b'"output":', b'"text": "' + LONG + LONG + b'", "output":')
    sent = [CREATED + DELTA, end[:30], end[30:]]
    talk = await relayed(sent, EVENTS)
    assert talk.body == b"".join(sent)
    assert (talk.relay.terminal, talk.relay.facts()) == ("completed", FACTS)


@timeless
async def test_pieces_behind_one_that_is_read_wait_for_it() -> None:
    end = COMPLETED.replace(b'"output":', b'"text": "' + LONG + LONG + b'", "output":')
    talk = Talk(EVENTS, run=slowly)
    await settled()
    talk.answer.feed(CREATED, last=False)
    talk.answer.feed(end, last=False)
    talk.answer.feed(b": one", last=False)
    assert talk.source.said[-1] == "rest"  # the upstream waits, too
    talk.answer.fail(Interrupted("x"))
    assert b"completed" not in talk.body
    while not talk.relay.over:
        await settled()
    await settled()
    assert talk.body == CREATED + end + b": one"
    assert (talk.raised, talk.relay.torn) == (None, False)
    assert talk.relay.facts() == FACTS


async def slowly(steps: Iterator[None]) -> None:
    for _ in steps:
        await asyncio.sleep(0)


@timeless
async def test_a_packed_stream_is_read_through_its_coding() -> None:
    packed = gzip.compress(STREAM)
    coding = (b"content-encoding", b"gzip")
    talk = await relayed([packed[:50], packed[50:]], EVENTS, coding)
    assert talk.body == packed
    assert (talk.relay.terminal, talk.relay.facts()) == ("completed", FACTS)


@timeless
async def test_the_event_that_names_the_response_is_told_once() -> None:
    talk, told = Talk(EVENTS), list[bytes]()
    talk.relay.on_created = told.append
    await settled()
    talk.answer.feed(CREATED, last=False)
    talk.answer.feed(DELTA + COMPLETED, last=False)
    (created,) = told
    assert json.loads(created)["response"]["id"] == "resp_1"
