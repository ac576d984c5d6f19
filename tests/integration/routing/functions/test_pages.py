"""Searches among more leases than one call may look at."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from libs.common.contracts.events import encode
from tests.integration.routing.functions.desk import STREAM, Desk, resource
from tests.support.databases.function_keys import TAG, gateways, leases
from tests.support.values.telemetry import gateway_event

pytestmark = pytest.mark.asyncio
RESOURCES = [f"openai-{number}" for number in range(1, 5)]
MOST_READ = 600  # leases of one page
MOST_ENDED = 60  # by one call
SILENT_MS = 4_000


def field(gateway: str, request: str) -> str:
    return f"{gateway}/{request}"


async def take(desk: Desk, gateway: str, *requests: str) -> None:
    """Leases of these requests, over all resources."""
    pipe = desk.redis.pipeline(transaction=False)
    for number, request in enumerate(requests):
        record = f'{{"id":"{request}","pad":"{"x" * 100}"}}'
        key = leases(RESOURCES[number % len(RESOURCES)])
        pipe.hset(key, field(gateway, request), record)
    await pipe.execute()


async def end(desk: Desk, gateway: str, *requests: str) -> None:
    for id_ in RESOURCES:
        await desk.redis.hdel(leases(id_), *(field(gateway, r) for r in requests))


def named(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


async def pages(
    desk: Desk, gateway: str, between: Callable[[int], Awaitable[Any]] | None = None
) -> list[list[str]]:
    place, found = await desk.routing.held(gateway)
    read = [found]
    while place:
        if between is not None:
            await between(len(read))
        place, found = await desk.routing.held(gateway, place)
        read.append(found)
    return read


async def total(desk: Desk) -> int:
    return sum((await desk.in_flight()).values())


@pytest_asyncio.fixture
async def busy(desk: Desk) -> Desk:
    await desk.publish(*(resource(number) for number in range(1, 5)))
    return desk


class TestHeld:
    async def test_each_page_is_bounded(self, busy: Desk) -> None:
        ours = named("r", 2_000)
        await take(busy, "gw", *ours)
        await take(busy, "gw2", *named("other", 2_000))
        read = await pages(busy, "gw")
        assert max(map(len, read)) < MOST_READ
        assert sorted(request for page in read for request in page) == sorted(ours)

    async def test_many_leases_of_others_are_passed_over_in_parts(
        self, busy: Desk
    ) -> None:
        await take(busy, "other", *named("r", 8_000))
        assert set(map(len, read := await pages(busy, "gw"))) == {0}
        assert len(read) > 2

    async def test_a_gateways_name_is_no_pattern(self, busy: Desk) -> None:
        await take(busy, "g*", "a")
        await take(busy, "gw", "b")
        await take(busy, r"g[w]\?", "c")
        assert await pages(busy, "g*") == [["a"]]
        assert await pages(busy, r"g[w]\?") == [["c"]]

    async def test_what_is_there_all_the_time_is_found(self, busy: Desk) -> None:
        """Hashes grow and shrink meanwhile, so some fields are listed twice."""
        stay, leave = named("stay", 1_000), named("leave", 1_500)
        await take(busy, "gw", *leave, *stay)

        async def change(number: int) -> None:
            if number == 2:
                await end(busy, "gw", *leave)
            await take(busy, "gw", *named(f"new{number % 2}", 400 * number))

        read = await pages(busy, "gw", change)
        assert len(read) > 4
        assert {request for page in read for request in page} >= set(stay)

    async def test_a_resource_leaves_the_catalogue_meanwhile(self, busy: Desk) -> None:
        await take(busy, "gw", *(ours := named("r", 2_000)))

        async def publish(number: int) -> None:
            left = [resource(n) for n in (1, 3, 4)]
            await busy.publish(*left, version=f"v{number + 1}")

        read = await pages(busy, "gw", publish)
        assert {request for page in read for request in page} == set(ours)

    async def test_a_resource_is_gone_whose_leases_were_read(self, busy: Desk) -> None:
        """The next one is read from its beginning."""
        await take(busy, "gw", *(ours := named("r", 4_000)))
        place: tuple[bytes, ...] = ()
        found: list[str] = []
        while len(place) == 0 or place[1] != b"openai-2":
            place, page = await busy.routing.held("gw", place)
            found += page
        assert place[0] != b"0"
        await busy.redis.delete(leases("openai-2"))
        await busy.publish(*(resource(n) for n in (1, 3, 4)), version="v2")
        while place:
            place, page = await busy.routing.held("gw", place)
            found += page
        # Every fourth one is on openai-2.
        assert set(found) >= {r for n, r in enumerate(ours) if n % 4 != 1}


class TestReaping:
    async def silent(self, desk: Desk, *requests: str) -> None:
        """A gateway that holds these, and others that are alive."""
        await desk.routing.heartbeat("gw", encode(gateway_event("gw")))
        await take(desk, "gw", *requests)
        await take(desk, "other", *named("o", 500))
        desk.now += 5_000
        await desk.routing.heartbeat("other")

    async def test_each_call_ends_some(self, busy: Desk) -> None:
        await self.silent(busy, *(ours := named("r", 1_000)))
        left = [1_500]

        async def go_on() -> bool:
            left.append(await total(busy))
            # Hashes are rebuilt, so some leases are listed twice.
            await take(busy, "other", *named("o", 100 * len(left)))
            await end(busy, "other", *named("o", 100 * len(left)))
            left.append(await total(busy))
            return True

        assert await busy.routing.reap(SILENT_MS, go_on=go_on) == 1_000
        assert len(left) > 2 * 1_000 / MOST_ENDED
        ended = [a - b for a, b in zip(left[::2], left[1::2], strict=False)]
        assert max(ended) <= MOST_ENDED
        events = await busy.events("request")
        assert sorted(event["id"] for event in events) == sorted(ours)
        assert len(await busy.events("gateway")) == 1
        assert await busy.redis.exists(f"{TAG}:reaping") == 0

    @pytest.mark.parametrize("strays", [False, True])
    async def test_the_next_round_goes_on(self, busy: Desk, *, strays: bool) -> None:
        """The router ended after the first call."""
        await self.silent(busy, *named("r", 500))
        first = await busy.routing.reap(SILENT_MS, go_on=no)
        assert 0 < first <= MOST_ENDED
        assert await busy.events("gateway") == []
        # Its leases do not count as strays of a gateway that was heard.
        assert first + await busy.routing.reap(SILENT_MS, strays=strays) == 500
        assert len({event["id"] for event in await busy.events("request")}) == 500
        assert len(await busy.events("gateway")) == 1
        assert await busy.routing.reap(SILENT_MS) == 0

    async def test_a_gateway_that_is_heard_meanwhile_keeps_the_rest(
        self, busy: Desk
    ) -> None:
        """Its heartbeat says that it is unknown, so it resumes what has ended."""
        await self.silent(busy, *named("r", 500))
        known = []

        async def beat() -> bool:
            known.append((await busy.routing.heartbeat("gw")).known)
            return True

        ended = await busy.routing.reap(SILENT_MS, go_on=beat)
        assert known == [False]
        assert ended <= MOST_ENDED
        assert await total(busy) == 1_000 - ended
        assert await busy.events("gateway") == []
        assert await busy.routing.reap(SILENT_MS, strays=True) == 0
        # Silent once more, it is reaped as any other.
        busy.now += 5_000
        await busy.routing.heartbeat("other")
        assert ended + await busy.routing.reap(SILENT_MS) == 500

    async def test_another_one_that_is_silent_meanwhile_is_for_the_next_round(
        self, busy: Desk
    ) -> None:
        await self.silent(busy, *named("r", 500))

        async def later() -> bool:
            busy.now += 5_000
            return True

        assert await busy.routing.reap(SILENT_MS, go_on=later) == 500
        assert await busy.routing.reap(SILENT_MS) == 500

    async def test_any_number_of_gateways_may_be_silent(self, busy: Desk) -> None:
        many = named("gw-", 10_000)
        await busy.redis.zadd(gateways(), dict.fromkeys(many, busy.now - 5_000))
        await take(busy, "gw-1", "r")
        for _ in range(2):
            await busy.routing.reap(SILENT_MS)
        assert await busy.redis.zcard(gateways()) == 9_800
        assert await busy.redis.exists(f"{TAG}:reaping") == 0

    async def test_a_search_for_strays_spares_what_another_router_ends(
        self, busy: Desk
    ) -> None:
        await self.silent(busy, *named("r", 1_000))
        busy.now -= 5_000  # it is not silent yet
        begun: list[int] = []

        async def another() -> bool:
            if not begun:
                busy.now += 5_000
                begun.append(await busy.routing.reap(SILENT_MS, go_on=no))
            return True

        await busy.routing.reap(SILENT_MS, strays=True, go_on=another)
        assert begun[0] > 0
        assert await busy.redis.zscore(gateways(), "gw") is None
        assert begun[0] + await busy.routing.reap(SILENT_MS) == 1_000

    async def test_strays_expire_with_the_next_reap_unless_they_are_heard(
        self, busy: Desk
    ) -> None:
        await take(busy, "gw", *named("r", 1_000))
        await take(busy, "gw2", *named("r", 1_000))
        parts = []

        async def go_on() -> bool:
            parts.append(await busy.redis.zcard(gateways()))
            return True

        assert await busy.routing.reap(SILENT_MS, strays=True, go_on=go_on) == 0
        assert len(parts) > 2
        busy.now += 3_000
        await busy.routing.heartbeat("gw")
        assert await busy.routing.reap(SILENT_MS, strays=True) == 0
        busy.now += 1_000
        assert await busy.routing.reap(SILENT_MS) == 1_000
        assert len((await pages(busy, "gw"))[0]) > 0

    async def test_sessions_are_forgotten_in_parts(self, busy: Desk) -> None:
        key, over = f"{TAG}:sessions", busy.now - 1
        await busy.redis.zadd(key, dict.fromkeys(named("s", 5_000), over))
        await busy.redis.zadd(key, {"kept": busy.now + 1})
        left = []

        async def go_on() -> bool:
            left.append(await busy.redis.zcard(key))
            return True

        await busy.routing.reap(SILENT_MS, go_on=go_on)
        assert left == [3_001, 1_001]
        assert await busy.redis.zrange(key, 0, -1) == [b"kept"]


class TestForTheVersionBefore:
    """Its gateways and routers make one call."""

    async def call(self, desk: Desk, name: str, *args: Any) -> Any:
        keys = 2, f"{TAG}:catalogue:version", STREAM
        return await desk.redis.execute_command("FCALL", f"rpx_{name}", *keys, *args)

    async def test_all_leases_at_once(self, busy: Desk) -> None:
        await take(busy, "gw", *named("r", 1_000))
        await take(busy, "other", "o")
        found = await self.call(busy, "held_v1", "gw")
        assert sorted(found) == sorted(r.encode() for r in named("r", 1_000))

    async def test_all_are_reaped_at_once(self, busy: Desk) -> None:
        await busy.routing.heartbeat("gw")
        await take(busy, "gw", *named("r", 1_000))
        await take(busy, "stray", *named("s", 1_000))
        busy.now += 5_000
        await busy.redis.hset(f"{TAG}:reserved:key:k", "gw/r1", "1 5")
        await busy.redis.sadd(f"{TAG}:reserving", "key:k")
        assert await self.call(busy, "reap_v1", SILENT_MS, busy.now, 1) == 1_000
        assert await busy.redis.exists(f"{TAG}:reserved:key:k") == 0
        assert await busy.redis.exists(f"{TAG}:reserving") == 0
        assert await busy.redis.zscore(gateways(), "stray") == busy.now


async def no() -> bool:
    return False
