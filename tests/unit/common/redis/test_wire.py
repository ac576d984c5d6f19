"""What a connection to Redis sends in a turn of the event loop. Its replies and its end
are in test_shared_connection.py, through the connection that callers have."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from libs.common.redis.wire import ALONE, WAITS_S, Wire
from tests.support.memory.clock import timeless
from tests.support.memory.transports import Wire as Transport


class Open(Transport):
    """A transport that may get another protocol."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        pass


def opened() -> tuple[Wire, Transport]:
    transport = Open()
    made: Any = SimpleNamespace(
        _writer=SimpleNamespace(transport=transport), _close=lambda: None
    )
    return Wire(made, lambda _: None), cast(Transport, transport)


def ignored() -> None:
    pass


@timeless
async def test_calls_of_one_turn_are_written_together() -> None:
    wire, transport = opened()
    for call in (b"one", b"two", b"three"):
        wire.ask(call, ignored)
    assert transport.writes == [b"one"]
    await asyncio.sleep(0)
    assert transport.writes == [b"one", b"twothree"]
    wire.ask(b"four", ignored)  # others may follow, as they did
    assert transport.take() == b"onetwothree"
    await asyncio.sleep(0)
    assert transport.writes == [b"four"]


@timeless
async def test_who_waits_until_calls_are_written_is_called_then() -> None:
    wire, transport = opened()
    seen: list[bytes] = []
    assert not wire.when_sent(lambda: seen.append(b"never"))
    wire.ask(b"one", ignored)
    assert not wire.when_sent(lambda: seen.append(b"never"))  # it is written
    wire.ask(b"two", ignored)
    for _ in range(2):
        assert wire.when_sent(lambda: seen.append(transport.sent))
    assert seen == []
    await asyncio.sleep(0)
    assert seen == [b"onetwo", b"onetwo"]
    for call in (b"three", b"four"):
        wire.ask(call, ignored)
    await asyncio.sleep(0)
    assert transport.sent == b"onetwothreefour"
    assert len(seen) == 2  # once


@timeless
async def test_who_waits_is_called_although_the_connection_is_lost() -> None:
    wire, transport = opened()
    called: list[None] = []
    wire.ask(b"one", ignored)
    wire.ask(b"two", ignored)
    assert wire.when_sent(lambda: called.append(None))
    wire.drop("went away")
    await asyncio.sleep(0)
    assert called == [None]
    assert transport.sent == b"one"


# Reports that wait ------------------------------------------------------------


async def allow(wire: Wire, transport: Transport) -> None:
    """A reply allows that reports wait."""
    wire.report(b"first", ignored)
    await asyncio.sleep(0)
    assert transport.take() == b"first"
    wire.data_received(b":%d\r\n" % ALONE)


@timeless
async def test_a_call_takes_reports_along() -> None:
    wire, transport = opened()
    await allow(wire, transport)
    for report in (b"one", b"two"):
        wire.report(report, ignored)
        await asyncio.sleep(WAITS_S / 4)
    assert transport.writes == []
    assert len(wire.unanswered) == 2
    wire.ask(b"call", ignored)
    assert transport.writes == [b"onetwocall"]
    await asyncio.sleep(2 * WAITS_S)
    assert transport.writes == [b"onetwocall"]


@timeless
async def test_the_calls_of_a_turn_take_reports_along_in_their_order() -> None:
    wire, transport = opened()
    await allow(wire, transport)
    wire.ask(b"a", ignored)
    await asyncio.sleep(0)
    wire.report(b"1", ignored)
    for call in (b"b", b"c"):
        wire.ask(call, ignored)
    wire.report(b"2", ignored)
    await asyncio.sleep(0)
    assert transport.sent == b"a1bc2"
    wire.ask(b"d", ignored)  # written at the end of the turn, as the one before
    wire.report(b"3", ignored)
    await asyncio.sleep(0)
    assert transport.sent == b"a1bc2d3"


@timeless
async def test_where_many_calls_share_a_turn_reports_go_with_them() -> None:
    wire, transport = opened()
    await allow(wire, transport)
    seen: list[bytes] = []
    wire.ask(b"call", ignored)
    for report in (b"one", b"two"):
        wire.report(report, ignored)
    assert wire.when_sent(lambda: seen.append(transport.sent))
    await asyncio.sleep(0)
    assert seen == [b"callonetwo"]
    wire.report(b"three", ignored)  # others may follow, as they did
    assert wire.when_sent(lambda: seen.append(transport.sent))
    await asyncio.sleep(0)
    assert seen[1:] == [b"callonetwothree"]
    wire.report(b"four", ignored)
    assert not wire.when_sent(ignored)
    await asyncio.sleep(0)
    assert transport.take() == b"callonetwothree"
    await asyncio.sleep(1.1 * WAITS_S)
    assert transport.take() == b"four"


@timeless
async def test_reports_wait_for_a_bounded_time() -> None:
    wire, transport = opened()
    await allow(wire, transport)
    wire.report(b"one", ignored)
    await asyncio.sleep(0.8 * WAITS_S)
    wire.ask(b"call", ignored)
    await asyncio.sleep(0)
    wire.report(b"two", ignored)  # waits anew, when the timer of the first one ends
    assert transport.take() == b"onecall"
    await asyncio.sleep(0.95 * WAITS_S)
    assert transport.take() == b""
    await asyncio.sleep(0.1 * WAITS_S)
    assert transport.take() == b"two"


@timeless
async def test_rare_reports_do_not_wait() -> None:
    wire, transport = opened()
    for _ in range(3):
        await allow(wire, transport)
        await asyncio.sleep(1.1 * WAITS_S)


@timeless
async def test_reports_wait_only_where_a_reply_allows_it() -> None:
    wire, transport = opened()
    for report in (b"one", b"two"):
        wire.report(report, ignored)
    assert wire.when_sent(ignored)
    await asyncio.sleep(0)
    assert transport.take() == b"onetwo"
    wire.data_received(b"$3\r\n5-0\r\n$3\r\n6-0\r\n")
    await allow(wire, transport)
    wire.report(b"three", ignored)
    assert not wire.when_sent(ignored)  # nobody depends on it
    wire.send_unsent()
    assert transport.take() == b"three"
    wire.data_received(b"$3\r\n7-0\r\n")  # there is another gateway
    await asyncio.sleep(1.1 * WAITS_S)
    wire.report(b"four", ignored)
    await asyncio.sleep(0)
    assert transport.take() == b"four"


@timeless
async def test_only_replies_to_reports_allow_it() -> None:
    wire, transport = opened()
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    wire.ask(b"call", future)
    wire.data_received(b":%d\r\n" % ALONE)
    assert await future == ALONE
    wire.report(b"one", ignored)
    await asyncio.sleep(0)
    assert transport.sent == b"callone"


@timeless
async def test_reports_that_wait_fail_with_the_connection() -> None:
    wire, transport = opened()
    failed: list[str] = []
    await allow(wire, transport)
    wire.report(b"one", lambda: failed.append("one"))
    wire.drop("went away")
    assert failed == ["one"]
    await asyncio.sleep(2 * WAITS_S)
    assert transport.sent == b""
