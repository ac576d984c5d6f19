"""Scripted nodes of a Redis Cluster, one of which has the slot of our keys."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from libs.common.redis.cluster.layout import Address, slot_of
from libs.common.redis.keys import DEFAULT
from libs.common.redis.url import addresses
from tests.support.databases.resp import Command, Scripted, scripted

SLOT = slot_of(DEFAULT)
UP = b"cluster_state:ok\r\ncluster_slots_assigned:16384\r\n"
DOWN = UP.replace(b"ok", b"fail")


class ScriptedCluster:
    """What a node answers to a command is `answer` if it has the slot, else a
    redirection to `owner`."""

    def __init__(self, answer: Callable[[Command], Any]) -> None:
        self.answer = answer
        self.nodes: list[Scripted] = []
        self.owner = 0
        # By node: who has the slot, if it does not know better.
        self.believes: dict[int, int] = {}
        self.states: dict[int, bytes] = {}  # replies to CLUSTER INFO
        self.more: list[Address] = []  # primaries that do not run
        self.slots = 0  # the first one that anybody has

    @property
    def url(self) -> str:
        places = (self.address(number) for number in range(len(self.nodes)))
        return f"redis+cluster://{','.join(f'{h}:{p}' for h, p in places)}"

    def address(self, number: int) -> Address:
        ((host, port),) = addresses(self.nodes[number].url)
        return host, port

    def reply(self, number: int, command: Command) -> Any:
        if command[0] == b"CLUSTER":
            return self._about_itself(number, command[1])
        if self.believes.get(number, self.owner) != number:
            return Exception(f"MOVED {SLOT} {self.place(number)}")
        return self.answer(command)

    def place(self, number: int) -> str:
        """HOST:PORT of the owner, as this node believes."""
        host, port = self.address(self.believes.get(number, self.owner))
        return f"{host}:{port}"

    def _about_itself(self, number: int, what: bytes) -> Any:
        if what == b"INFO":
            return self.states.get(number, UP)
        owner = self.believes.get(number, self.owner)
        if what == b"SLOTS":
            members = [owner, *(n for n in range(len(self.nodes)) if n != owner)]
            return [[self.slots, 16383, *(self._member(n) for n in members)]]
        places = [*map(self.address, range(len(self.nodes))), *self.more]
        return [[b"slots", [], b"nodes", [_described(*place)]] for place in places]

    def _member(self, number: int) -> list[Any]:
        host, port = self.address(number)
        return [host.encode(), port, b"%040d" % number, []]


def _described(host: str, port: int) -> list[Any]:
    told = {b"port": port, b"ip": host.encode(), b"endpoint": host.encode()}
    told |= {b"role": b"master", b"health": b"online"}
    return [part for pair in told.items() for part in pair]


@asynccontextmanager
async def scripted_cluster(
    answer: Callable[[Command], Any], nodes: int = 3
) -> AsyncIterator[ScriptedCluster]:
    cluster = ScriptedCluster(answer)
    async with AsyncExitStack() as stack:
        for number in range(nodes):

            def reply(command: Command, number: int = number) -> Any:
                return cluster.reply(number, command)

            cluster.nodes.append(await stack.enter_async_context(scripted(reply)))
        yield cluster
