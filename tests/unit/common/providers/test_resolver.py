"""Resolving hosts: concurrent requests share a lookup."""

import asyncio
import socket

import pytest

from libs.common.providers.resolver import AddressInfo, Resolver
from tests.support.memory.clock import settled, timeless

ADDRESS: AddressInfo = (2, 1, 6, "", ("192.0.2.1", 443))


class Names:
    """Answers when the test tells it to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.answer: asyncio.Future[list[AddressInfo]] = asyncio.Future()

    async def look_up(self, host: str, port: int) -> list[AddressInfo]:
        self.asked.append((host, port))
        return await asyncio.shield(self.answer)


@pytest.mark.parametrize(
    ("host", "family"),
    [("192.0.2.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6)],
)
@timeless
async def test_an_address_is_not_looked_up(host: str, family: int) -> None:
    names = Names()
    (found,) = await Resolver(names.look_up).find(host, 443)
    assert (found[0], found[4][:2]) == (family, (host, 443))
    assert names.asked == []


@timeless
async def test_who_asks_at_one_time_shares_a_lookup() -> None:
    names = Names()
    resolver = Resolver(names.look_up)
    asking = [asyncio.ensure_future(resolver.find("api.test", 443)) for _ in range(3)]
    other = asyncio.ensure_future(resolver.find("api.test", 444))
    await settled()
    assert names.asked == [("api.test", 443), ("api.test", 444)]
    names.answer.set_result([ADDRESS])
    assert await asyncio.gather(*asking, other) == [[ADDRESS]] * 4
    await resolver.find("api.test", 443)
    assert len(names.asked) == 3


@timeless
async def test_who_gives_up_ends_it_for_nobody_else() -> None:
    names = Names()
    resolver = Resolver(names.look_up)
    leaving = asyncio.ensure_future(resolver.find("api.test", 443))
    staying = asyncio.ensure_future(resolver.find("api.test", 443))
    await settled()
    leaving.cancel()
    await settled()
    names.answer.set_result([ADDRESS])
    assert await staying == [ADDRESS]
    assert leaving.cancelled()


@timeless
async def test_a_failure_is_everybodys_and_is_forgotten() -> None:
    names = Names()
    resolver = Resolver(names.look_up)
    asking = [asyncio.ensure_future(resolver.find("api.test", 443)) for _ in range(2)]
    await settled()
    names.answer.set_exception(socket.gaierror("no such host"))
    assert [type(await failed(each)) for each in asking] == [socket.gaierror] * 2
    names.answer = asyncio.Future()
    names.answer.set_result([ADDRESS])
    assert await resolver.find("api.test", 443) == [ADDRESS]


async def failed(asking: "asyncio.Future[list[AddressInfo]]") -> BaseException | None:
    await asyncio.wait([asking])
    return asking.exception()


@timeless
async def test_a_failure_that_nobody_waits_for_is_no_trouble() -> None:
    names = Names()
    resolver = Resolver(names.look_up)
    asking = asyncio.ensure_future(resolver.find("api.test", 443))
    await settled()
    asking.cancel()
    names.answer.set_exception(socket.gaierror("no such host"))
    await settled()
