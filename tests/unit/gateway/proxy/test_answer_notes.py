"""What is noted of an answer in passing, whatever its pieces and its coding."""

import gzip
import zlib

import pytest
import zstandard

from libs.common.headers import Header
from services.gateway.content.response_facts import Facts
from services.gateway.proxy.answer_notes import LARGEST_READ
from services.gateway.upstream.response import Interrupted
from tests.support.memory.clock import settled, timeless
from tests.support.memory.relays import (
    ANSWER,
    CREATED,
    DELTA,
    EVENTS,
    FACTS,
    JSON,
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
