"""An answer in progress, awaited or pushed: its pieces arrive once and in order, and
its end or failure exactly once."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.upstream.errors import Interrupted, NoKey, UpstreamError
from services.gateway.upstream.response import HIGH_WATER, Answer
from tests.support.memory.clock import settled, timeless


class Source:
    """The connection that an answer arrives on."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.said: list[str] = []

    def pause_reading(self) -> None:
        self.said.append("rest")

    def resume_reading(self) -> None:
        self.said.append("read on")

    def abort(self) -> None:
        self.said.append("abort")

    def end_within(self, seconds: float) -> None:
        self.said.append("end soon")


class Sink:
    def __init__(self) -> None:
        self.fed: list[tuple[bytes, bool]] = []
        self.failed: list[UpstreamError] = []

    def feed(self, data: bytes, *, last: bool) -> None:
        self.fed.append((data, last))

    def fail(self, error: UpstreamError) -> None:
        self.failed.append(error)


def coming() -> tuple[Answer, Source]:
    source = Source()
    return Answer(source, 200, []), source


BROKE = Interrupted("it broke")


@timeless
async def test_what_came_together_is_given_together() -> None:
    answer, _ = coming()
    answer.feed(b"a", last=False)
    answer.feed(b"b", last=False)
    waiting = [answer.waiting]
    assert await answer.next() == b"ab"
    waiting.append(answer.waiting)
    answer.feed(b"c", last=True)
    waiting.append(answer.waiting)
    assert waiting == [True, False, True]
    assert [await answer.next(), await answer.next()] == [b"c", b""]
    assert answer.ended


@timeless
async def test_a_reader_waits_for_the_next_piece() -> None:
    answer, _ = coming()
    reading = asyncio.ensure_future(answer.next())
    await settled()
    assert not reading.done()
    answer.feed(b"a", last=False)
    assert await reading == b"a"
    reading = asyncio.ensure_future(answer.next())
    await settled()
    answer.feed(b"", last=True)
    assert await reading == b""


@timeless
async def test_a_reader_that_gives_up_is_not_woken() -> None:
    answer, _ = coming()
    reading = asyncio.ensure_future(answer.next())
    await settled()
    reading.cancel()
    answer.feed(b"a", last=False)
    await settled()
    assert reading.cancelled()
    assert await answer.next() == b"a"


@timeless
async def test_a_failure_comes_behind_what_arrived() -> None:
    answer, _ = coming()
    answer.feed(b"a", last=False)
    answer.fail(BROKE)
    assert await answer.next() == b"a"
    for _ in range(2):
        with pytest.raises(Interrupted, match="it broke"):
            await answer.next()
    assert not answer.ended


@timeless
async def test_a_socket_rests_while_its_reader_is_slow() -> None:
    answer, source = coming()
    answer.feed(b"a" * HIGH_WATER, last=False)
    assert source.said == []
    answer.feed(b"a", last=False)
    assert source.said == ["rest"]
    assert len(await answer.next()) == HIGH_WATER + 1
    assert source.said == ["rest", "read on"]


@timeless
async def test_after_its_end_an_answer_touches_its_connection_no_more() -> None:
    answer, source = coming()
    answer.feed(b"a" * (HIGH_WATER + 1), last=True)
    await answer.next()
    answer.pause()
    answer.resume()
    answer.close()
    answer.finish_alone()
    assert source.said == []


@timeless
async def test_a_sink_can_slow_down_give_up_and_let_go() -> None:
    answer, source = coming()
    answer.flow_into(Sink())
    answer.pause()
    answer.resume()
    answer.close()
    answer.finish_alone()
    assert source.said == ["rest", "read on", "abort", "end soon"]
    answer.feed(b"rest", last=False)
    answer.fail(BROKE)  # nobody hears it


STEPS = st.lists(st.binary(max_size=3), max_size=6)
AT_THE_END = [
    pytest.param(True, id="whole"),
    pytest.param(False, id="broken"),
]


@pytest.mark.parametrize("whole", AT_THE_END)
@settings(max_examples=40, deadline=None)
@given(before=STEPS, after=st.none() | STEPS)
def test_a_sink_gets_each_byte_once_and_one_end(
    whole: bool, before: list[bytes], after: list[bytes] | None
) -> None:
    """Whatever arrived before the sink was attached; `after` None: the end too."""

    @timeless
    async def run() -> None:
        answer, _ = coming()
        sink = Sink()
        for piece in before:
            answer.feed(piece, last=False)
        if after is not None:
            answer.flow_into(sink)
        for piece in after or ():
            answer.feed(piece, last=False)
        end(answer, whole=whole)
        if after is None:
            answer.flow_into(sink)
        fed = b"".join(piece for piece, _ in sink.fed)
        assert fed == b"".join([*before, *(after or ())]) + b"!" * whole
        lasts = [last for _, last in sink.fed]
        assert lasts.count(True) == whole
        assert lasts[-1:] == [True] or not whole
        assert sink.failed == ([] if whole else [BROKE])

    run()


def end(answer: Answer, *, whole: bool) -> None:
    if whole:
        answer.feed(b"!", last=True)
    else:
        answer.fail(BROKE)


@timeless
async def test_an_answer_that_was_read_to_its_end_has_only_an_end_for_a_sink() -> None:
    answer, _ = coming()
    answer.feed(b"a", last=True)
    await answer.next()
    sink = Sink()
    answer.flow_into(sink)
    assert sink.fed == [(b"", True)]


def test_an_error_says_what_it_is() -> None:
    assert str(NoKey()) == "this gateway cannot resolve its key"


@timeless
async def test_a_body_that_came_whole_can_be_taken_at_once() -> None:
    answer, _ = coming()
    answer.feed(b"a", last=False)
    early = answer.whole()
    answer.feed(b"b", last=True)
    pieces, sink = answer.whole(), Sink()
    answer.flow_into(sink)
    assert (early, pieces, sink.fed) == (None, None, [(b"ab", True)])
    whole, _ = coming()
    whole.feed(b"a", last=True)
    assert (whole.whole(), whole.whole(), whole.ended) == (b"a", None, True)
    broken, _ = coming()
    broken.feed(b"a", last=False)
    broken.fail(BROKE)
    assert broken.whole() is None
