"""What a connection to Redis sends in a turn of the event loop. Its replies and its end
are in test_shared_connection.py, through the connection that callers have."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from libs.common.redis.wire import Wire
from tests.support.memory.transports import Wire as Transport

pytestmark = pytest.mark.asyncio


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
