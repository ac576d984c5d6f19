"""Two stacks on one Redis. Their pools, proxy keys, gateways and requests have the same
names, and they have nothing in common."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from libs.common.errors import NoCatalogue
from libs.common.proxy_keys import Principal
from libs.common.redis.check_queue import Orders
from libs.common.redis.client import ClientCaller
from libs.common.redis.key_table import KeyTable
from libs.common.redis.keys import DEFAULT, Keys
from libs.common.redis.leader import LeaderLease
from libs.common.redis.shared_connection import connect
from libs.common.redis.telemetry_stream import TelemetryStream
from libs.common.routing.budgets import KNOWN
from libs.common.routing.functions import RoutingFunctions, Terms
from libs.common.routing.types import (
    Busy,
    Kept,
    LimitsUnknown,
    Place,
    Queued,
    SpendUnknown,
    digest,
)
from services.router.function_library import library
from services.router.shards.registration import Registration
from services.router.shards.rows import Shard
from tests.integration.routing.budgets.scene import KEY, Scene, budget
from tests.support.values.asks import made_ask, made_release

pytestmark = pytest.mark.asyncio

OTHER = Keys("b_2")
SESSION, ID = digest("s"), digest("resp_1")
TERMS = Terms(most_in_flight=1, queue_ms=60_000)

Stacks = tuple[Scene, Scene]


@pytest_asyncio.fixture
async def stacks(redis: Redis) -> AsyncIterator[Stacks]:
    made = Scene(redis), Scene(redis, OTHER)
    for stack in made:
        await stack.start()
    yield made


async def served(stack: Scene) -> None:
    """One request of a session, from acquire to release."""
    await stack.routing.acquire(made_ask(session_id="s", session=SESSION))
    await stack.routing.release(made_release("a1", session=SESSION, learned=(ID,)))


class Nobody:
    """SQL without shards."""

    async def note(self, name: str, instance: str, now: datetime) -> list[Shard]:
        return []


async def everything(redis: Redis, keys: Keys) -> dict[bytes, Any]:
    """The content of all keys with a tag."""
    found = [key async for key in redis.scan_iter(f"{keys.tag}*")]
    return {key: await redis.dump(key) for key in sorted(found)}


async def libraries(redis: Redis) -> dict[bytes, bytes]:
    """The code of each function library."""
    listed: Any = await redis.execute_command("FUNCTION", "LIST", "WITHCODE")  # type: ignore[no-untyped-call]
    found = [dict(zip(each[::2], each[1::2], strict=True)) for each in listed]
    return {each[b"library_name"]: each[b"library_code"] for each in found}


async def test_all_that_a_stack_writes_is_its_own(stacks: Stacks, redis: Redis) -> None:
    ours, theirs = stacks
    before = await everything(redis, ours.keys)
    assert before
    await served(theirs)
    await theirs.routing.heartbeat("gw", b"{}")
    await theirs.routing.learn_account("a1", "acct")
    table = KeyTable(ClientCaller(redis), theirs.keys)
    await table.change(None, {"hash": Principal("key_1")})
    await Orders(redis, theirs.keys).place("id-1")
    await LeaderLease(redis, "router", "me", 60_000, theirs.keys).hold()
    await Registration(Nobody(), ClientCaller(redis), theirs.keys).note()
    assert await everything(redis, ours.keys) == before
    names = [key.decode() async for key in redis.scan_iter("*")]
    elsewhere = (ours.keys.tag, theirs.keys.tag, ours.stream)
    assert [name for name in names if not name.startswith(elsewhere)] == []
    assert len(await everything(redis, theirs.keys)) > 12


async def test_sessions_ids_and_leases(stacks: Stacks) -> None:
    ours, theirs = stacks
    await served(ours)
    await ours.routing.acquire(made_ask("r2"))
    assert await theirs.routing.kept([SESSION], [ID]) == [Kept(), Kept()]
    assert [kept.owner for kept in await ours.routing.kept([SESSION], [ID])] != [
        None,
        None,
    ]
    assert (await ours.routing.in_flight(), await theirs.routing.in_flight()) == (1, 0)
    assert await ours.routing.affinity_count() == 1
    assert await theirs.routing.held("gw") == ((), [])


async def test_nobody_reaps_the_leases_of_another_stack(stacks: Stacks) -> None:
    ours, theirs = stacks
    for stack in stacks:
        await stack.routing.heartbeat("gw")
        await stack.routing.acquire(made_ask())
    theirs.now += 600_000
    assert await theirs.routing.reap(1_000, strays=True) == 1
    assert await ours.routing.held("gw") == ((), ["r1"])
    assert await ours.routing.reap(1_000, strays=True) == 0


async def test_the_events_of_a_stack_are_in_its_stream(
    stacks: Stacks, redis: Redis
) -> None:
    ours, theirs = stacks
    length = await redis.xlen(ours.stream)
    await served(theirs)
    assert len(await theirs.told("request")) == 1
    assert await redis.xlen(ours.stream) == length
    group = TelemetryStream(redis, theirs.stream, "responses-proxy-workers")
    await group.read("one", 10, 0)  # makes the group
    read = await group.read("one", 10, 0)
    assert await group.acknowledge([entry.id for entry in read]) == 0
    assert await redis.xlen(ours.stream) == length


async def test_a_user_of_one_stack_cannot_reach_the_other(
    stacks: Stacks, redis: Redis, valkey: str
) -> None:
    """Not through its functions either."""
    ours, theirs = stacks
    rights = ("on", ">hush", "~{b_2}:*", "+@all", "-@admin", "-@dangerous", "+info")
    await redis.execute_command("ACL", "SETUSER", "theirs", *rights)  # type: ignore[no-untyped-call]
    try:
        async with connect(valkey.replace("redis://", "redis://theirs:hush@")) as few:
            routing = RoutingFunctions(ClientCaller(few), theirs.stream, keys=OTHER)
            assert (await routing.acquire(made_ask())).resource_id == "a1"
            assert await few.get(OTHER.catalogue()) is not None
            with pytest.raises(NoPermissionError):
                await few.get(ours.keys.catalogue())
            for keys in ((ours.keys.catalogue_version(), ours.stream), ("{b_2}:x",)):
                call = (
                    ours.keys.function("heartbeat_v2"),
                    len(keys),
                    *keys,
                    "gw",
                    "",
                    "",
                )
                with pytest.raises((NoPermissionError, ResponseError), match="permi"):
                    await few.fcall(*call)
    finally:
        await redis.execute_command("ACL", "DELUSER", "theirs")  # type: ignore[no-untyped-call]


async def test_what_a_key_of_the_same_name_spent(stacks: Stacks) -> None:
    ours, theirs = stacks
    quotas = [stack.quota(budget(tokens=100), rpm=5) for stack in stacks]
    for stack, quota in zip(stacks, quotas, strict=True):
        with pytest.raises(SpendUnknown):
            await stack.acquire(quota)
        await stack.summed()
    await ours.acquire(quotas[0])
    await ours.release(quotas[0], 60)
    assert (await ours.spent(), await theirs.spent()) == (
        (60, 0, KNOWN),
        (0, 0, KNOWN),
    )
    assert await ours.routing.used("k") != await theirs.routing.used("k")


async def test_proxy_keys(redis: Redis) -> None:
    caller = ClientCaller(redis)
    ours, theirs = KeyTable(caller), KeyTable(caller, OTHER)
    for stack in (Scene(redis), Scene(redis, OTHER)):
        await stack.routing.load_library()
    assert await ours.change(None, {"hash": Principal("key_1")})
    assert (await theirs.version(), await theirs.read()) == (None, {})
    assert await theirs.change(None, {"hash": Principal("key_2")})
    assert (await ours.read())["hash"].id == "key_1"
    assert (await theirs.read())["hash"].id == "key_2"


async def test_leaders_and_orders(redis: Redis) -> None:
    for keys in (DEFAULT, OTHER):
        assert await LeaderLease(redis, "router", keys.namespace, 60_000, keys).hold()
    await Orders(redis, OTHER).place("id-1")
    assert not await Orders(redis).withdraw("id-1")
    assert await Orders(redis, OTHER).withdraw("id-1")


async def test_queues(redis: Redis) -> None:
    ours, theirs = Scene(redis, DEFAULT, TERMS), Scene(redis, OTHER, TERMS)
    for stack in (ours, theirs):
        await stack.start()
    await ours.routing.acquire(made_ask())
    waits = made_ask("r2", place=Place("share", 30_000))
    with pytest.raises((Busy, Queued)):
        await ours.routing.acquire(waits)
    assert sum(queue.requests for queue in await ours.routing.queues()) == 1
    assert await theirs.routing.queues() == []
    assert (await theirs.routing.acquire(waits)).resource_id == "a1"


async def test_one_is_emptied_and_the_other_goes_on(
    stacks: Stacks, redis: Redis
) -> None:
    ours, theirs = stacks
    quota = ours.quota(budget(tokens=100), rpm=5)
    with pytest.raises(SpendUnknown):
        await ours.acquire(quota)
    await ours.summed()
    await ours.acquire(quota)
    await served(theirs)
    before = await everything(redis, ours.keys)
    await redis.delete(*await everything(redis, theirs.keys))
    with pytest.raises(NoCatalogue):
        await theirs.routing.acquire(made_ask("r9"))
    await redis.execute_command("FUNCTION", "DELETE", theirs.keys.namespace)  # type: ignore[no-untyped-call]
    assert await everything(redis, ours.keys) == before
    await ours.release(quota, 60)
    assert await ours.spent() == (60, 0, KNOWN)
    await theirs.start()
    await served(theirs)


async def test_one_is_upgraded_and_the_other_keeps_its_memory(
    stacks: Stacks, redis: Redis
) -> None:
    """What a key spent is in the library's memory, which a new library does not have
    (docs/adr/0013)."""
    quotas = [stack.quota(budget(tokens=100), rpm=5) for stack in stacks]
    for stack, quota in zip(stacks, quotas, strict=True):
        with pytest.raises(SpendUnknown):
            await stack.acquire(quota)
        await stack.summed()
        await stack.acquire(quota)
        await stack.release(quota, 60)
    ours, theirs = stacks
    code = (await libraries(redis))[b"rpx"]
    newer = library(OTHER).replace("-- version ", "-- version 99.")
    await redis.execute_command("FUNCTION", "LOAD", "REPLACE", newer)  # type: ignore[no-untyped-call]
    found = await libraries(redis)
    assert (set(found), found[b"rpx"]) == ({b"rpx", b"b_2"}, code)
    assert await ours.spent() == (60, 0, KNOWN)
    await ours.routing.acquire(made_ask("r5", quota=quotas[0]))  # knows it by its id
    with pytest.raises(LimitsUnknown):
        await theirs.routing.acquire(made_ask("r5", quota=quotas[1]))
    # A router of this version leaves a newer library of its own stack in place, and
    # does not care about that of another.
    await theirs.routing.load_library()
    assert (await libraries(redis))[b"b_2"] == newer.encode()
    assert not await ours.routing.library_is_older()
    assert (await ours.routing.spend(KEY))[0] is not None
