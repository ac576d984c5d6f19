"""Captured bodies on their way into Redis, which is scripted; a real one is in
tests/integration/ledger/test_captured_bodies.py and test_redis_client.py."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.connection import AbstractConnection

from libs.common.contracts.payloads import Payload
from libs.common.errors import RedisAway
from libs.common.redis.capture_batches import BATCH_BYTES
from libs.common.redis.capture_stream import Backlog, PayloadStream, Refused
from tests.support.databases.resp import HANG_UP, Command, Raw, Scripted, scripted

pytestmark = pytest.mark.asyncio
SMALL = Payload("r1", 1, request_body=b"x")
LARGE = Payload("r2", 2, request_body=b"x" * BATCH_BYTES)  # an entry of its own
OOM = Exception("OOM command not allowed when used memory > 'maxmemory'.")
READONLY = Exception("READONLY You can't write against a read only replica.")


@asynccontextmanager
async def stream(
    answer: Callable[[Command], Any],
) -> AsyncIterator[tuple[PayloadStream, Scripted]]:
    async with scripted(answer) as server:
        made = PayloadStream(server.url, "telemetry:events")
        try:
            yield made, server
        finally:
            made.close()


async def appended(made: PayloadStream, *payloads: Payload) -> int:
    """How many were refused; it blocks, so in a thread."""
    return await asyncio.to_thread(made.append, payloads)


async def test_small_bodies_travel_in_one_entry() -> None:
    async with stream(lambda _: b"1-0") as (made, server):
        assert await appended(made, SMALL, SMALL, LARGE) == 0
    assert [command[:3] for command in server.commands] == [
        [b"XADD", b"telemetry:events:payloads", b"*"]
    ] * 2


@pytest.mark.parametrize(
    ("payloads", "sends"), [([SMALL, SMALL, LARGE, LARGE], 1), ([LARGE], 3)]
)
async def test_only_a_body_alone_is_sent_in_parts(
    payloads: list[Payload], sends: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part that is sent interrupts the event loop; a copy of a large body costs
    more."""
    sent: list[int] = []
    send: Any = AbstractConnection.send_packed_command

    def counting(self: AbstractConnection, command: Any, **options: Any) -> None:
        if any(b"XADD" in part for part in command):
            sent.append(len(command))
        send(self, command, **options)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", counting)
    async with stream(lambda _: b"1-0") as (made, server):
        assert await appended(made, *payloads) == 0
    assert (sent, len(server.commands)) == ([sends], len(payloads) - (sends == 1))


async def test_nothing_is_sent_of_nothing() -> None:
    async with stream(lambda _: b"1-0") as (made, server):
        assert await appended(made) == 0
    assert server.connections == 0


async def test_one_connection_serves_all_calls() -> None:
    async with stream(lambda _: b"1-0") as (made, server):
        for _ in range(3):
            await appended(made, SMALL)
    assert (server.connections, len(server.commands)) == (1, 3)


async def test_what_a_full_redis_refuses_is_counted() -> None:
    async with stream(lambda c: OOM if len(c[-1]) > BATCH_BYTES else b"1-0") as (
        made,
        server,
    ):
        assert await appended(made, SMALL, LARGE, SMALL) == 1
        assert await appended(made, SMALL) == 0
    assert server.connections == 1


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(HANG_UP, id="hangs up"),
        pytest.param(READONLY, id="is a replica now"),
        *(
            pytest.param(Exception(text), id=text.partition(" ")[0])
            for text in ("MOVED 430 h:1", "ASK 430 h:1", "TRYAGAIN", "CLUSTERDOWN no")
        ),
    ],
)
async def test_after_trouble_the_next_call_goes_over_another_connection(
    reply: Any,
) -> None:
    replies = [reply, b"1-0"]
    async with stream(lambda _: replies.pop(0)) as (made, server):
        with pytest.raises(RedisAway):
            await appended(made, SMALL)
        assert await appended(made, SMALL) == 0
    assert server.connections == 2


async def test_replies_are_read_however_they_are_cut() -> None:
    replies = [Raw(b"$3\r\n1-"), Raw(b"0\r\n$3\r\n2-0\r\n")]
    async with stream(lambda _: replies.pop(0)) as (made, _):
        assert await appended(made, SMALL, LARGE) == 0


async def test_a_redis_that_is_not_there() -> None:
    async with scripted(lambda _: None) as server:
        url = server.url
    made = PayloadStream(url, "telemetry:events")
    with pytest.raises(RedisAway):
        await appended(made, SMALL)
    made.close()


@pytest.mark.parametrize(
    ("info", "size", "expected"),
    [
        (b"used_memory:50\r\nmaxmemory:200\r\n", 9, Backlog(7, 9, 0.25)),
        (b"used_memory:50\r\nmaxmemory:0\r\n", None, Backlog(7, 0, 0.0)),
    ],
)
async def test_the_backlog_and_the_share_of_memory(
    info: bytes, size: int | None, expected: Backlog
) -> None:
    answers = {b"XLEN": 7, b"MEMORY": size, b"INFO": info}
    async with stream(lambda c: answers[c[0]]) as (made, _):
        assert await asyncio.to_thread(made.backlog) == expected


async def test_a_backlog_that_redis_refuses_to_tell() -> None:
    async with stream(lambda _: Exception("NOPERM no")) as (made, _):
        with pytest.raises((Refused, RedisAway), match="no"):
            await asyncio.to_thread(made.backlog)
