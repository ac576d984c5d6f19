"""The clients of a Redis Cluster, with a real one: the slot moves, and its owner is
lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest
import pytest_asyncio
from redis.exceptions import TryAgainError

from libs.common.contracts.payloads import Payload
from libs.common.errors import RedisAway
from libs.common.redis.capture_stream import PayloadStream
from libs.common.redis.cluster.client import ClusterClient
from libs.common.redis.hot_connection import HotConnection, hot_connection
from libs.common.redis.keys import DEFAULT
from libs.common.redis.shared_connection import Refused, connect
from libs.common.redis.telemetry_stream import TelemetryStream
from services.router.cluster.library import ClusterLibrary
from tests.support.databases.valkey_cluster import ValkeyCluster, valkey_cluster
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio

TAG = DEFAULT.tag
KEY = f"{TAG}:n"
ABSENT = f"{TAG}:absent"
STREAM = f"{TAG}:events"
# Writes, then reads a key that it did not declare, as the routing functions do; and
# counts in its own memory.
LIBRARY = f"""#!lua name=rpx
-- version 9.9
local counted = 0
redis.register_function('write', function(keys)
  redis.call('INCR', keys[1])
  return redis.call('EXISTS', '{ABSENT}')
end)
redis.register_function('count', function() counted = counted + 1; return counted end)
"""


class Leader:
    async def hold(self) -> bool:
        return True


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    """Each test leaves the slot wherever it moved it."""
    with asyncio.Runner() as runner:
        made = valkey_cluster(tmp_path_factory.mktemp("cluster"), replicas=True)
        yield runner.run(made.__aenter__())
        runner.run(made.__aexit__(None, None, None))


@pytest_asyncio.fixture
async def cluster(servers: ValkeyCluster) -> ValkeyCluster:
    owner = await servers.owner()
    for key in await owner.keys_in_slot():
        await owner.ask("DEL", key)
    return servers


@pytest_asyncio.fixture
async def client(cluster: ValkeyCluster) -> AsyncIterator[ClusterClient]:
    async with connect(cluster.url) as made:
        assert isinstance(made, ClusterClient)
        yield made


@pytest_asyncio.fixture
async def hot(cluster: ValkeyCluster) -> AsyncIterator[HotConnection]:
    connection = hot_connection(cluster.url)
    await connection.open()
    yield connection
    await connection.close()


async def test_no_call_is_lost_doubled_or_overtaken_while_the_slot_moves(
    cluster: ValkeyCluster, hot: HotConnection
) -> None:
    calls = []
    moving = asyncio.create_task(cluster.move(await cluster.other()))
    while not moving.done() or hot.connections == 1:
        calls += [hot.call("INCR", KEY) for _ in range(20)]
        await asyncio.sleep(0.001)
    await moving
    assert await asyncio.gather(*calls) == list(range(1, len(calls) + 1))
    assert hot.connections == 2


async def test_other_clients_follow_a_slot_that_moved(
    cluster: ValkeyCluster, client: ClusterClient
) -> None:
    stream = TelemetryStream(client, STREAM, "g")
    bodies = PayloadStream(cluster.url, STREAM)
    for number in (1, 2):
        await stream.append("gateway", "id", "{}")
        assert await asyncio.to_thread(bodies.append, [Payload("r", 1)]) == 0
        assert (await asyncio.to_thread(bodies.backlog)).entries == number
        (entry,) = await stream.read("c", 10, 1) or await stream.read("c", 10, 1)
        await cluster.move(await cluster.other())
        # A transaction is not sent again: its caller repeats it.
        await eventually(partial(_acknowledged, stream, entry.id))
        assert await stream.depth() == 0
        with pytest.raises(RedisAway, match="at another node"):
            await asyncio.to_thread(bodies.append, [Payload("r", 1)])
    bodies.close()


async def _acknowledged(stream: TelemetryStream, entry: str) -> bool:
    with contextlib.suppress(RedisAway):
        return await stream.acknowledge([entry]) == 0
    return False


async def test_a_function_does_all_or_nothing_while_keys_move(
    cluster: ValkeyCluster, client: ClusterClient, hot: HotConnection
) -> None:
    source, target = await cluster.owner(), await cluster.other()
    for node in (source, target):
        await node.ask("FUNCTION", "LOAD", "REPLACE", LIBRARY)
    call = "FCALL", "write", 1, KEY
    assert (await client.execute_command(*call), await hot.call(*call)) == (0, 0)
    await cluster.begin_move(source, target)
    for _ in range(2):
        with pytest.raises(TryAgainError):
            await client.execute_command(*call)
        with pytest.raises(Refused, match=r"TRYAGAIN|ASK"):
            await hot.call(*call)
        # Single keys are found at either node.
        assert (await client.get(KEY), await hot.call("GET", KEY)) == (b"2", b"2")
        assert await hot.call("EXISTS", ABSENT) == 0
        await cluster.move_keys(source, target)
    await cluster.end_move(source, target)
    assert (await client.execute_command(*call), await hot.call(*call)) == (0, 0)
    assert await client.get(KEY) == b"4"
    assert hot.connections == 2


async def test_what_a_former_owner_counted_is_forgotten(
    cluster: ValkeyCluster, client: ClusterClient
) -> None:
    first, second = await cluster.owner(), await cluster.other()
    library = ClusterLibrary(client, LIBRARY, Leader())
    await first.ask("FUNCTION", "LOAD", "REPLACE", LIBRARY)
    count = "FCALL", "count", 1, KEY
    await client.set(KEY, 1)
    await library.look()
    assert [await client.execute_command(*count) for _ in "12"] == [1, 2]
    await cluster.move(second)
    assert await client.execute_command(*count) == 1
    await library.look()
    await cluster.move(first)
    assert await client.execute_command(*count) == 1


async def test_a_user_with_few_rights_is_enough(cluster: ValkeyCluster) -> None:
    rights = f">hush ~{TAG}:* +@all -@admin -@dangerous +info"
    for node, _ in await cluster.views():
        await node.ask("ACL", "SETUSER", "proxy", "reset", "on", *rights.split())
    url = cluster.url.replace("://", "://proxy:hush@")
    async with connect(url) as client:
        assert isinstance(client, ClusterClient)
        assert await client.incr(KEY) == 1
        await ClusterLibrary(client, LIBRARY, Leader()).look()
        await cluster.move(await cluster.other())
        assert await client.incr(KEY) == 2


@pytest.mark.parametrize("hang", [False, True], ids=["killed", "hangs"])
async def test_the_owner_is_lost(
    cluster: ValkeyCluster, hot: HotConnection, client: ClusterClient, *, hang: bool
) -> None:
    assert await hot.call("SET", KEY, "1")
    assert await client.get(KEY) == b"1"
    gone = await cluster.fail_over(hang=hang)

    async def answers() -> bool:
        try:
            return bool(await hot.call("SET", KEY, "2"))
        except (RedisAway, Refused):
            return False

    await eventually(answers)
    assert hot.connections > 1
    await cluster.bring_back(gone)
    assert await client.get(KEY) == b"2"
