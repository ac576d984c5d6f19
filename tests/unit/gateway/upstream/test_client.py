"""The upstream client: connections are reused, dialed when there is none, and returned
or closed however a request ends."""

import asyncio
import math
from typing import cast

import pytest

from libs.common.settings.http_proxies import Egress, Proxy
from services.gateway.upstream.client import IDLE_SECONDS, UpstreamClient
from services.gateway.upstream.connection import NO_TIMEOUTS, Timeouts
from services.gateway.upstream.connector import Dialer
from services.gateway.upstream.errors import (
    Broken,
    NoFreeConnection,
    NotSent,
    Slow,
    TimedOut,
    UpstreamError,
)
from services.gateway.upstream.origin import Origin
from services.gateway.upstream.response import Answer
from tests.support.memory.clock import clock, settled, timeless
from tests.support.memory.upstreams import Wires
from tests.support.upstreams.asking import answer_of

ORIGIN = Origin("https", "api.test", 443)
OTHER = Origin("https", "other.test", 443)
HEAD = b"POST /v1/responses HTTP/1.1\r\nhost: api.test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def made(
    limit: int = 10, timeouts: Timeouts = NO_TIMEOUTS, proxy: Proxy | None = None
) -> tuple[UpstreamClient, Wires]:
    wires = Wires(proxy)
    return UpstreamClient(3.0, timeouts, cast(Dialer, wires), limit), wires


def asking(
    client: UpstreamClient, origin: Origin = ORIGIN, within_s: float = math.inf
) -> "asyncio.Task[Answer]":
    deadline = clock().time() + within_s
    return asyncio.create_task(answer_of(client, origin, HEAD, b"", deadline))


async def one_answer(client: UpstreamClient, wires: Wires, at: int = -1) -> None:
    asked = asking(client)
    await settled()
    wires.wires[at].feed(OK)
    assert await (await asked).next() == b"ok"


@timeless
async def test_an_answered_connection_serves_the_next_request() -> None:
    client, wires = made()
    for _ in range(3):
        await one_answer(client, wires)
    assert [origin for origin, _ in wires.dialled] == [ORIGIN]
    assert wires.wires[0].sent == HEAD * 3
    assert client.open == 1


@timeless
async def test_each_origin_has_connections_of_its_own() -> None:
    client, wires = made()
    await one_answer(client, wires)
    asked = asking(client, OTHER)
    await settled()
    wires.wires[1].feed(OK)
    await asked
    assert [origin for origin, _ in wires.dialled] == [ORIGIN, OTHER]


@timeless
async def test_a_connection_that_was_idle_for_long_is_dialed_anew() -> None:
    client, wires = made()
    await one_answer(client, wires)
    clock().advance(IDLE_SECONDS)
    await one_answer(client, wires)
    assert len(wires.wires) == 2
    assert wires.wires[0].aborted


@pytest.mark.parametrize(
    ("within_s", "given_s"),
    [(math.inf, 3.0), (2.0, 2.0), (-1.0, 0.0)],
    ids=["long", "short", "over"],
)
@timeless
async def test_dialing_takes_no_longer_than_the_request_may(
    within_s: float, given_s: float
) -> None:
    client, wires = made()
    asked = asking(client, within_s=within_s)
    await settled()
    assert wires.dialled[0][1] == given_s
    asked.cancel()


@timeless
async def test_who_cannot_be_dialed_leaves_its_place() -> None:
    client, wires = made(limit=1)
    wires.error = NotSent("no")
    for _ in range(2):
        with pytest.raises(NotSent, match="no"):
            await asking(client)
    assert client.open == 0


@timeless
async def test_a_connection_that_closes_at_once_leaves_its_place() -> None:
    client, wires = made(limit=1)
    wires.closes = True
    for _ in range(2):
        with pytest.raises(NotSent, match="closed the connection"):
            await asking(client)
    assert client.open == 0


@timeless
async def test_beyond_the_limit_one_waits_for_the_other() -> None:
    client, wires = made(limit=1)
    first, second = asking(client), asking(client)
    await settled()
    assert len(wires.wires) == 1
    wires.wires[0].feed(OK)
    await first
    await settled()
    wires.wires[0].feed(OK)
    assert (await second).status == 200
    assert client.open == 1


@timeless
async def test_waiting_for_a_connection_ends_at_the_deadline() -> None:
    client, _ = made(limit=1)
    holding = asking(client)
    with pytest.raises(NoFreeConnection):
        await asking(client, within_s=5.0)
    holding.cancel()


@timeless
async def test_who_gives_up_while_dialing_leaves_its_place() -> None:
    client, _ = made(limit=1)
    asked = asking(client)
    await asyncio.sleep(0)
    asked.cancel()
    await settled()
    assert client.open == 0


@timeless
async def test_who_gives_up_while_it_waits_for_an_answer_closes_the_connection() -> (
    None
):
    client, wires = made()
    asked = asking(client)
    await settled()
    asked.cancel()
    await settled()
    assert (wires.wires[0].aborted, client.open) == (True, 0)


@timeless
async def test_one_connection_closed_for_idleness_is_rarely_alone() -> None:
    client, wires = made()
    both = asking(client), asking(client)
    await settled()
    for wire in wires.wires:
        wire.feed(OK)
    await asyncio.gather(*both)
    asked = asking(client)
    await settled()
    wires.wires[1].hangs_up()
    with pytest.raises(Broken) as broken:
        await asked
    assert broken.value.reused
    assert (wires.wires[0].aborted, client.open) == (True, 0)


@timeless
async def test_a_new_connection_that_breaks_says_nothing_of_the_others() -> None:
    client, wires = made()
    both = asking(client), asking(client)
    await settled()
    wires.wires[1].feed(OK)
    wires.wires[0].hangs_up()
    with pytest.raises(Broken):
        await both[0]
    assert client.open == 1


@pytest.mark.parametrize(
    ("timeouts", "within_s", "kind"),
    [(NO_TIMEOUTS, 10.0, TimedOut), (Timeouts(first_s=10.0), math.inf, Slow)],
    ids=["the request's", "the upstream's"],
)
@timeless
async def test_deadlines_are_looked_at_from_time_to_time(
    timeouts: Timeouts, within_s: float, kind: type[Exception]
) -> None:
    client, _ = made(timeouts=timeouts)
    asked = asking(client, within_s=within_s)
    await settled()
    client.check(clock().time() + 9.0)
    await settled()
    assert not asked.done()
    client.check(clock().time() + 10.1)
    with pytest.raises(kind):
        await asked


@timeless
async def test_closing_ends_what_is_under_way() -> None:
    client, wires = made()
    await one_answer(client, wires)
    asked = asking(client, OTHER)
    await settled()
    client.close()
    assert [wire.aborted for wire in wires.wires] == [True, True]
    with pytest.raises(UpstreamError):
        await asked
    assert client.open == 0


@timeless
async def test_a_forwarding_proxy_is_told_the_whole_url() -> None:
    proxy = Egress.read({"ALL_PROXY": "http://proxy.test:3128"}).proxies["http"]
    client, wires = made(proxy=proxy)
    asked = asking(client, Origin("http", "api.test", 80))
    await settled()
    line = b"POST http://api.test:80/v1/responses HTTP/1.1\r\n"
    assert wires.wires[0].sent.startswith(line)
    asked.cancel()
