"""Bodies that one call must not read: in steps, between which others run."""

import asyncio
import gzip
import json
from collections.abc import Iterator

import pytest
import zstandard

from libs.common.bodies.hints import LARGEST_QUICK, UNREADABLE
from services.gateway.content.body_reader import (
    LARGEST_QUICK_PACKED,
    MOST_AT_ONCE,
    SLICE_S,
    Reader,
)
from services.gateway.content.request_coding import Unopened

pytestmark = pytest.mark.asyncio
PATH = b"/responses"
SMALL = b'{"model":"m"}'
LARGE = json.dumps({"model": "m", "input": "x" * (2 * LARGEST_QUICK)}).encode()
# Random text, so that it stays large when compressed.
WIDE = json.dumps(
    {"model": "m", "input": [hash((n, "x")) % 10**18 for n in range(40_000)]}
).encode()


async def test_a_small_body_is_read_at_once() -> None:
    read = await Reader().read(PATH, [], SMALL)
    assert (read.hints.model, read.plain, read.scan) == ("m", SMALL, None)


async def test_a_large_body_is_read_in_steps() -> None:
    read = await Reader().read(PATH, [], LARGE)
    assert (read.hints.model, read.plain) == ("m", LARGE)
    assert read.scan is not None


@pytest.mark.parametrize("plain", [SMALL, LARGE, WIDE])
@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        pytest.param(b"gzip", gzip.compress, id="gzip"),
        pytest.param(b"zstd", zstandard.compress, id="zstd"),
        pytest.param(b"identity", bytes, id="identity"),
    ],
)
async def test_a_compressed_body_is_opened(
    plain: bytes, coding: bytes, pack: type[bytes]
) -> None:
    packed, reader = pack(plain), Reader()
    read = await reader.read(PATH, [], packed, coding)
    assert (read.hints.model, read.plain) == ("m", plain)
    assert await reader.opened(packed, coding) == plain


async def test_a_large_zstd_body_is_opened_in_a_thread() -> None:
    packed = zstandard.compress(WIDE)
    assert len(packed) > LARGEST_QUICK_PACKED
    assert (await Reader().read(PATH, [], packed, b"zstd")).plain == WIDE


async def test_a_plain_body_is_open() -> None:
    assert await Reader().opened(SMALL, None) == SMALL


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        pytest.param(SMALL, b"br", id="unknown coding"),
        pytest.param(b"nonsense", b"gzip", id="no gzip"),
        pytest.param(gzip.compress(WIDE)[:-9], b"gzip", id="cut"),
        pytest.param(zstandard.compress(WIDE)[:-9] + b"x" * 9, b"zstd", id="no zstd"),
    ],
)
async def test_what_cannot_be_opened_has_no_hints(body: bytes, coding: bytes) -> None:
    reader = Reader()
    read = await reader.read(PATH, [], body, coding)
    assert (read.hints.model, read.plain) == (None, b"")
    with pytest.raises(Unopened):
        await reader.opened(body, coding)


MANY = b'"a":"' + b"x" * 20_000 + b'",'


@pytest.mark.parametrize("name", [b"previous_response_id", b"conversation"])
@pytest.mark.parametrize(
    ("beside", "repeats"),
    [
        pytest.param(b"", False, id="once"),
        pytest.param(b'"NAME":"x_2",', True, id="twice"),
        pytest.param(MANY + b'"NAME":null,', True, id="far from each other"),
        pytest.param(b'"NAM\\u0045":"x_2",', True, id="escaped"),
        pytest.param(b'"NAME":"%b",' % (b"y" * 40_000), True, id="a long value"),
        pytest.param(b'"NAME":{"id":"%b"},' % (b"y" * 40_000), True, id="an object"),
        pytest.param(b'"a":{"NAME":1,"b":["NAME"]},', False, id="within a member"),
        pytest.param(b'"a":"NAME","b":"\\"NAME\\":1",', False, id="in texts"),
    ],
)
async def test_state_that_is_named_twice_is_a_problem_of_isolation(
    name: bytes, beside: bytes, *, repeats: bool
) -> None:
    """Parsers differ in which of two equal names counts."""
    escaped = name[:-1] + b"\\u%04x" % name[-1]
    more = beside.replace(b"NAM\\u0045", escaped).replace(b"NAME", name)
    body = b'{"%b":"x_1",' % name + more + LARGE[1:]
    read = await Reader().read(PATH, [], body, isolate=True)
    assert (read.hints.problem == UNREADABLE) is repeats
    assert (await Reader().read(PATH, [], body)).hints.problem is None


async def test_steps_of_all_bodies_share_the_loops_time() -> None:
    reader, ran = Reader(), list[str]()

    def steps(name: str) -> Iterator[None]:
        for _ in range(3):
            ran.append(name)
            ends = asyncio.get_running_loop().time() + 2 * SLICE_S
            while asyncio.get_running_loop().time() < ends:
                pass
            yield

    await asyncio.gather(reader.run(steps("a")), reader.run(steps("b")))
    assert sorted(ran) == ["a"] * 3 + ["b"] * 3
    assert ran[:2] == ["a", "b"]


async def test_only_so_many_bodies_are_held_at_once() -> None:
    reader = Reader()
    most = MOST_AT_ONCE
    async with reader._turn:  # so that none ends before all have begun
        reads = [
            asyncio.ensure_future(reader.read(PATH, [], WIDE)) for _ in range(most + 1)
        ]
        await asyncio.sleep(0)
        assert reader._room.locked()
        reads[0].cancel()  # its place is free again
    done = await asyncio.gather(*reads, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert not any(isinstance(read, BaseException) for read in done[1:])
    assert not reader._room.locked()
    assert not reader._turn.locked()
