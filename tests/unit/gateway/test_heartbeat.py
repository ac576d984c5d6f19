"""The work of each heartbeat: reports to Redis, reads changes, and restores what an
emptied Redis has lost."""

import asyncio
import itertools
from pathlib import Path
from typing import Any, cast

import pytest

from libs.common.budgets import Budget
from libs.common.errors import NoCatalogue, RedisAway
from libs.common.proxy_keys import Principal
from libs.common.redis.keys import DEFAULT, Keys
from libs.common.redis.shared_connection import SharedConnection
from libs.common.redis.wire import WAITS_S
from libs.common.routing.functions import RoutingFunctions
from libs.common.routing.types import Owner
from services.gateway import heartbeat
from services.gateway.heartbeat import (
    AT_ONCE,
    IMPAIRED_MS,
    PAGES_AT_ONCE,
    PUBLISH_EVERY,
    SWEEP_EVERY,
    WITHOUT_CATALOGUE_S,
    Heartbeat,
)
from services.gateway.ledger.journal.delivery import JournalDelivery
from tests.support.memory.clock import clock, settled, timeless
from tests.support.memory.plane import GATEWAY, SECRET, World, answer
from tests.support.memory.requests import KEY, asked
from tests.support.memory.twin import Twin, resource


class Connection:
    def __init__(self) -> None:
        self.connections = 1
        self.taken: list[tuple[Any, ...]] = []

    def call(self, *command: Any) -> "asyncio.Future[Any]":
        self.taken.append(command)
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


class Beating:
    def __init__(
        self, root: Path, twin: Twin | None = None, keys: Keys = DEFAULT
    ) -> None:
        self.world = World(root, twin or Twin(resource("a"), resource("b")))
        self.twin = self.world.twin
        self.redis = Connection()
        redis = cast(SharedConnection, self.redis)
        self.keeper = JournalDelivery(self.world.journal, redis, "telemetry")
        self.heartbeat = Heartbeat(
            GATEWAY,
            redis,
            cast(RoutingFunctions, self.twin),
            self.world.catalogue,
            self.keeper,
            self.world.in_flight,
            self.world.authenticator,
            keys,
        )


@timeless
async def test_a_beat_reports_the_books_and_reads_the_catalogue(tmp_path: Path) -> None:
    beating = Beating(tmp_path)
    await beating.heartbeat.beat()
    assert b'"gateway_id":"gw-1"' in beating.twin.beats[0]
    assert set(beating.world.catalogue.targets) == {"a", "b"}
    beating.twin.publish(resource("c"))
    await beating.heartbeat.beat()
    assert set(beating.world.catalogue.targets) == {"c"}


@timeless
async def test_a_new_gateway_serves_when_others_know_of_it(tmp_path: Path) -> None:
    beating = Beating(tmp_path)
    begun = clock().time()
    beat = asyncio.create_task(beating.heartbeat.beat())
    await settled()
    assert beating.twin.beats
    known = [beating.world.catalogue.known]
    await beat
    assert [*known, beating.world.catalogue.known] == [False, True]
    assert clock().time() - begun == pytest.approx(2 * WAITS_S)
    beating.twin.publish(resource("c"))
    await beating.heartbeat.beat()
    assert clock().time() - begun == pytest.approx(2 * WAITS_S)


@pytest.mark.parametrize("keys", [DEFAULT, Keys("b_2")])
@timeless
async def test_a_beat_names_impaired_parts(tmp_path: Path, keys: Keys) -> None:
    beating = Beating(tmp_path, keys=keys)
    beating.heartbeat.impaired = lambda: ("journal",)
    await beating.heartbeat.beat()
    told = ("SET", keys.impaired(GATEWAY), "journal", "PX", IMPAIRED_MS)
    assert told in beating.redis.taken
    beating.redis.taken.clear()
    beating.heartbeat.impaired = tuple
    await beating.heartbeat.beat()
    assert told not in beating.redis.taken


@timeless
async def test_a_beat_reads_the_proxy_keys(tmp_path: Path) -> None:
    beating = Beating(tmp_path)
    beating.world.table.put(Principal(id="k"))
    await beating.heartbeat.beat()
    headers = [(b"authorization", b"Bearer " + SECRET.encode())]
    assert beating.world.access.admit(headers) == Principal(id="k")


@timeless
async def test_without_a_catalogue_a_beat_says_so_but_proxy_keys_are_read(
    tmp_path: Path,
) -> None:
    beating = Beating(tmp_path, Twin())
    beating.world.table.put(Principal(id="k"))
    with pytest.raises(NoCatalogue):
        await beating.heartbeat.beat()
    assert beating.world.authenticator.known


@timeless
async def test_without_redis_a_beat_is_missed(tmp_path: Path) -> None:
    beating = Beating(tmp_path)
    beating.twin.away = True
    with pytest.raises(RedisAway):
        await beating.heartbeat.beat()


@timeless
async def test_an_emptied_redis_is_given_back_leases_and_owners(tmp_path: Path) -> None:
    beating = Beating(tmp_path)
    world, twin = beating.world, beating.twin
    await beating.heartbeat.beat()
    twin.adopted.clear()
    client = world.client()
    await client.asks()
    owner = Owner("a", "account-a")
    for number in range(AT_ONCE + 1):
        world.offline.remember({}, {f"id-{number}": owner})
    twin.knows_us = False
    await beating.heartbeat.beat()
    (exchange,) = world.in_flight.active.values()
    assert [lease.request_id for lease in twin.resumed] == [exchange.record.id]
    assert sum(len(ids) for _, ids in twin.adopted) == AT_ONCE + 1
    assert len(twin.adopted) == 2
    twin.knows_us = True
    twin.resumed.clear()
    await beating.heartbeat.beat()
    assert twin.resumed == []
    world.upstreams[0].feed(answer())
    await settled()


@timeless
async def test_reservations_are_given_back_and_a_new_server_is_in_doubt(
    tmp_path: Path,
) -> None:
    beating = Beating(tmp_path)
    await beating.heartbeat.beat()
    assert beating.twin.doubted == 1
    holds = Budget("key:k", tokens=100, reserve=True)
    beating.world.table.put(Principal(id="k", budgets=(holds,)))
    body = b'{"model":"m","max_output_tokens":5}'
    _, upstream = await asked(beating.world, body, KEY)
    (life,) = beating.world.in_flight.active.values()
    beating.twin.knows_us = False
    await beating.heartbeat.beat()
    assert beating.twin.reserved == [(life.record.id, len(body) + 5)]
    upstream.feed(answer())
    await settled()


@timeless
async def test_a_request_that_ends_meanwhile_gets_no_reservation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would end it."""
    monkeypatch.setattr(heartbeat, "AT_ONCE", 1)
    beating = Beating(tmp_path)
    world, twin = beating.world, beating.twin
    await beating.heartbeat.beat()
    holds = Budget("key:k", tokens=1_000, reserve=True)
    world.table.put(Principal(id="k", budgets=(holds,)))
    body = b'{"model":"m","max_output_tokens":5}'
    _, first = await asked(world, body, KEY)
    _, second = await asked(world, body, KEY)
    kept, _ = world.in_flight.active
    twin.knows_us = False
    reserve = twin.reserve

    async def meanwhile(*given: Any) -> None:
        await reserve(*given)
        second.feed(answer())
        await settled()

    monkeypatch.setattr(twin, "reserve", meanwhile)
    await beating.heartbeat.beat()
    assert twin.reserved == [(kept, len(body) + 5)]
    first.feed(answer())
    await settled()


@timeless
async def test_what_could_not_be_given_back_is_owed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beating = Beating(tmp_path)
    twin = beating.twin
    await beating.heartbeat.beat()
    twin.adopted.clear()
    beating.world.offline.remember({}, {"id": Owner("a", "account-a")})
    twin.knows_us = False

    async def away(*_: object) -> int:
        raise RedisAway

    with monkeypatch.context() as lost:
        lost.setattr(twin, "adopt", away)
        with pytest.raises(RedisAway):
            await beating.heartbeat.beat()
    twin.knows_us = True
    await beating.heartbeat.beat()
    assert len(twin.adopted) == 1


@timeless
async def test_after_a_lost_connection_unknown_leases_are_dropped(
    tmp_path: Path,
) -> None:
    beating = Beating(tmp_path)
    world, twin = beating.world, beating.twin
    await beating.heartbeat.beat()
    await world.client().asks()
    (known,) = world.in_flight.active
    twin.leases = [known, "granted to nobody"]
    await beating.heartbeat.beat()
    dropped = [list(twin.abandoned)]
    beating.redis.connections += 1
    await beating.heartbeat.beat()
    dropped.append(list(twin.abandoned))
    assert dropped == [[], ["granted to nobody"]]
    world.upstreams[0].feed(answer())
    await settled()


@timeless
async def test_many_leases_are_looked_at_over_several_beats(tmp_path: Path) -> None:
    beating = Beating(tmp_path)
    twin = beating.twin
    twin.leases = [f"r{number}" for number in range(2 * PAGES_AT_ONCE + 1)]
    twin.page, dropped = 1, []
    for _ in range(4):
        await beating.heartbeat.beat()
        dropped.append(len(twin.abandoned))
    assert dropped == [PAGES_AT_ONCE, 2 * PAGES_AT_ONCE, *[2 * PAGES_AT_ONCE + 1] * 2]


@timeless
async def test_a_lost_connection_begins_the_search_anew(tmp_path: Path) -> None:
    beating = Beating(tmp_path)
    twin = beating.twin
    twin.leases = [f"r{number}" for number in range(2 * PAGES_AT_ONCE)]
    twin.page = 1
    await beating.heartbeat.beat()
    beating.redis.connections += 1
    await beating.heartbeat.beat()
    assert twin.abandoned == 2 * twin.leases[:PAGES_AT_ONCE]


@timeless
async def test_a_search_goes_on_although_it_lasts_until_the_next_one(
    tmp_path: Path,
) -> None:
    beating = Beating(tmp_path)
    twin = beating.twin
    twin.leases = [f"r{number}" for number in range(PAGES_AT_ONCE * (SWEEP_EVERY + 2))]
    twin.page = 1
    for _ in range(SWEEP_EVERY + 2):
        await beating.heartbeat.beat()
    assert twin.abandoned == twin.leases


@timeless
async def test_a_page_that_was_not_dropped_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beating = Beating(tmp_path)
    twin = beating.twin
    twin.leases, twin.page = ["r1", "r2"], 1

    async def away(*_: object) -> int:
        raise RedisAway

    with monkeypatch.context() as lost:
        lost.setattr(twin, "abandon", away)
        with pytest.raises(RedisAway):
            await beating.heartbeat.beat()
    await beating.heartbeat.beat()
    assert twin.abandoned == ["r1", "r2"]


@timeless
async def test_a_request_that_begins_between_two_pages_keeps_its_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beating = Beating(tmp_path)
    world, twin = beating.world, beating.twin
    twin.leases, twin.page = ["r1", "r2"], 1
    abandon = twin.abandon

    async def meanwhile(gateway: str, requests: list[str]) -> int:
        if not world.in_flight.active:
            await world.client().asks()
            twin.leases[1:] = world.in_flight.active
        return await abandon(gateway, requests)

    monkeypatch.setattr(twin, "abandon", meanwhile)
    await beating.heartbeat.beat()
    assert twin.abandoned == ["r1"]
    assert len(twin.leases) == 2
    world.upstreams[0].feed(answer())
    await settled()


@timeless
async def test_now_and_then_books_are_published_and_leases_looked_at(
    tmp_path: Path,
) -> None:
    beating = Beating(tmp_path)
    beating.twin.leases = ["granted to nobody"]
    await beating.heartbeat.beat()  # the first is of a new connection
    beating.twin.abandoned.clear()
    for _ in range(SWEEP_EVERY - 1):
        await beating.heartbeat.beat()
    assert len(beating.redis.taken) == SWEEP_EVERY // PUBLISH_EVERY
    assert beating.twin.abandoned == ["granted to nobody"]


@timeless
async def test_a_heart_beats_on_whatever_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beating = Beating(tmp_path)
    fails: list[Exception | None] = [
        RedisAway(), NoCatalogue(), RuntimeError("ours"), None, None,
    ]  # fmt: skip
    beats: list[float] = []
    over = asyncio.Event()

    async def beat() -> None:
        beats.append(clock().time())
        error = fails.pop(0)
        if not fails:
            over.set()
        if error is not None:
            raise error
        await beating.world.catalogue.refresh()

    monkeypatch.setattr(beating.heartbeat, "beat", beat)
    running = asyncio.create_task(beating.heartbeat.run(1.0))
    await over.wait()
    running.cancel()
    waited = [round(b - a, 3) for a, b in itertools.pairwise(beats)]
    # Until there is a catalogue it looks often.
    assert waited == [
        WITHOUT_CATALOGUE_S,
        WITHOUT_CATALOGUE_S,
        WITHOUT_CATALOGUE_S,
        1.0,
    ]
