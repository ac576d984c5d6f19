"""A Valkey cluster on loopback: three primaries, and a replica of each if wanted."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import Connection

from libs.common.redis.cluster.layout import slot_of
from libs.common.redis.keys import DEFAULT, Keys
from tests.support.databases.valkey import Valkey
from tests.support.processes.ports import free_port
from tests.support.processes.waiting import eventually

SLOT = slot_of(DEFAULT)
RANGES = ((0, 5460), (5461, 10922), (10923, 16383))
# A primary is replaced after it was unreachable for this time: soon while a test wants
# that, else not, however busy the machine is.
SOON_MS, LATE_MS = 1_000, 60_000
AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class View:
    """A node, as it sees itself. `primary`: the id of a replica's."""

    id: str
    flags: frozenset[str]
    primary: str
    slots: tuple[str, ...]

    @property
    def has_slot(self) -> bool:
        return self.has(SLOT)

    def has(self, slot: int) -> bool:
        bounds = (r.split("-") for r in self.slots if not r.startswith("["))
        return "master" in self.flags and any(
            int(each[0]) <= slot <= int(each[-1]) for each in bounds
        )


class Node:
    """One server of the cluster."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.hangs = False
        self.bus = free_port()
        self.server = Valkey(
            folder,
            *("--cluster-enabled", "yes", "--cluster-port", str(self.bus)),
            *("--cluster-node-timeout", str(SOON_MS)),
            # Otherwise a replica waits five seconds for others to sync as well.
            *("--repl-diskless-sync-delay", "0"),
            # A replica takes over however long it was without its primary.
            *("--cluster-replica-validity-factor", "0"),
        )

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def url(self) -> str:
        return self.server.url

    async def ask(self, *words: str | int) -> Any:
        """A reply as redis-py's parser leaves it. Errors are raised."""
        connection: Any = Connection(port=self.port, protocol=2, decode_responses=True)
        try:
            await connection.connect()
            await connection.send_command(*words)
            return await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)

    async def view(self) -> View:
        for line in (await self.ask("CLUSTER", "NODES")).splitlines():
            parts = line.split()
            if "myself" in parts[2]:
                flags = frozenset(parts[2].split(","))
                return View(parts[0], flags, parts[3], tuple(parts[8:]))
        raise LookupError("a node does not know itself")

    async def replicates(self) -> bool:
        """Whether this is a replica that has all of its primary's data."""
        async with Redis(port=self.port, protocol=2) as client:
            info = await client.info("replication")
        return bool(info.get("master_link_status") == "up")

    async def keys_in_slot(self) -> list[str]:
        """Some keys of the slot; none if there are none."""
        found: list[str] = await self.ask("CLUSTER", "GETKEYSINSLOT", SLOT, AT_ONCE)
        return found

    async def libraries(self) -> list[str]:
        """The names of the function libraries that it has."""
        listed = await self.ask("FUNCTION", "LIST")
        return [
            dict(zip(each[::2], each[1::2], strict=True))["library_name"]
            for each in listed
        ]


class ValkeyCluster:
    """All routing keys of a stack are in one slot, that of the `owner`."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        places = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        self.url = f"redis+cluster://{places}"

    async def views(self) -> list[tuple[Node, View]]:
        """The living nodes."""
        living = [n for n in self.nodes if n.server.alive and not n.hangs]
        return [(node, await node.view()) for node in living]

    async def owner(self, keys: Keys = DEFAULT) -> Node:
        """The node that says it has the slot. Raises `LookupError`."""
        for node, view in await self.views():
            if view.has(slot_of(keys)):
                return node
        raise LookupError("nobody has the slot")

    async def other(self) -> Node:
        """A primary without the slot."""
        return next(
            node
            for node, view in await self.views()
            if "master" in view.flags and not view.has_slot
        )

    async def move(self, target: Node, keys: Keys = DEFAULT) -> None:
        """Move the slot by Valkey's atomic migration; returns when `target` has it."""
        source, view, slot = await self.owner(keys), await target.view(), slot_of(keys)
        words = "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", view.id
        await source.ask("CLUSTER", *words)

        async def moved() -> bool:
            return (await target.view()).has(slot)

        await eventually(moved)

    async def begin_move(self, source: Node, target: Node) -> None:
        """Begin to move the slot key by key."""
        from_, to = (await source.view()).id, (await target.view()).id
        await target.ask("CLUSTER", "SETSLOT", SLOT, "IMPORTING", from_)
        await source.ask("CLUSTER", "SETSLOT", SLOT, "MIGRATING", to)

    async def move_keys(self, source: Node, target: Node) -> int:
        """Move the keys that are in the slot; returns how many."""
        moved = 0
        while keys := await source.keys_in_slot():
            place = "127.0.0.1", target.port, "", 0, 5000
            await source.ask("MIGRATE", *place, "KEYS", *keys)
            moved += len(keys)
        return moved

    async def end_move(self, source: Node, target: Node) -> None:
        to = (await target.view()).id
        for node in (target, source):
            await node.ask("CLUSTER", "SETSLOT", SLOT, "NODE", to)

    async def hand_over(self) -> None:
        """The owner and its replica swap roles; returns when the replica has the
        slot."""
        before = (await (await self.owner()).view()).id
        views = await self.views()
        replica = next(node for node, view in views if view.primary == before)
        await replica.ask("CLUSTER", "FAILOVER")

        async def over() -> bool:
            return (await replica.view()).has_slot

        await eventually(over)

    async def fail_over(self, *, hang: bool = False) -> Node:
        """`kill -9` of the owner, or it stops to answer. Returns it once a replica has
        taken over; `bring_back` is for later."""
        await self.replace_after(SOON_MS)
        gone = await self.owner()
        gone.hangs = hang
        if hang:
            gone.server.hang()
        else:
            gone.server.kill()

        async def replaced() -> bool:
            with contextlib.suppress(LookupError):
                return bool(await self.owner())
            return False

        await eventually(replaced)
        return gone

    async def bring_back(self, gone: Node) -> None:
        """Returns when a lost node is a replica with all data."""
        if gone.hangs:
            gone.server.go_on()
        else:
            gone.server.start()
        gone.hangs = False
        await eventually(gone.replicates)
        await self.replace_after(LATE_MS)

    async def replace_after(self, ms: int) -> None:
        for node, _ in await self.views():
            await node.ask("CONFIG", "SET", "cluster-node-timeout", ms)

    async def well(self) -> bool:
        """Whether all nodes know each other, and are up."""
        known = f"cluster_known_nodes:{len(self.nodes)}\r"
        for node in self.nodes:
            info = await node.ask("CLUSTER", "INFO")
            if "cluster_state:ok" not in info or known not in info:
                return False
        return True


@asynccontextmanager
async def valkey_cluster(
    folder: Path, *, replicas: bool = False
) -> AsyncIterator[ValkeyCluster]:
    async with AsyncExitStack() as stack:
        count = len(RANGES)
        nodes = [Node(folder / f"n{n}") for n in range(count * (2 if replicas else 1))]
        for node in nodes:
            node.server.start()
            stack.callback(node.server.kill)
        for number, (node, slots) in enumerate(zip(nodes, RANGES, strict=False), 1):
            await node.ask("CLUSTER", "ADDSLOTSRANGE", *slots)
            await node.ask("CLUSTER", "SET-CONFIG-EPOCH", number)
        first = nodes[0]
        for node in nodes[1:]:
            await first.ask("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus)
        cluster = ValkeyCluster(nodes)
        await eventually(cluster.well)
        for primary, replica in zip(nodes[:count], nodes[count:], strict=False):
            await replica.ask("CLUSTER", "REPLICATE", (await primary.view()).id)
        for replica in nodes[count:]:
            await eventually(replica.replicates)
        await cluster.replace_after(LATE_MS)
        yield cluster
