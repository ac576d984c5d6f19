"""Keeps the function library on the primaries of a Redis Cluster that may get the slot
of the routing keys. The one that has it is the publisher's."""

import asyncio

import structlog

from libs.common.errors import ProxyError
from libs.common.redis.client import ClientCaller
from libs.common.redis.cluster.client import ClusterClient
from libs.common.redis.cluster.layout import Address
from libs.common.redis.keys import DEFAULT, Keys
from libs.common.redis.leader import Leadership
from libs.common.routing.control import ControlFunctions
from services.router.catalogue import FAILURES
from services.router.rounds import Rounds

log = structlog.get_logger()

EVERY_S = 1.0


class ClusterLibrary:
    """One router at a time."""

    def __init__(
        self,
        client: ClusterClient,
        library: str,
        leadership: Leadership,
        keys: Keys = DEFAULT,
    ) -> None:
        self._client = client
        self._keys = keys
        self._library = library
        self._leadership = leadership
        # Primaries whose library counted nothing. A former owner of the slot has counts
        # of budgets in its library's memory, which are wrong if the slot comes back.
        self._blank: set[Address] = set()
        self._rounds = Rounds(
            FAILURES, "cannot load the functions", "load_failed", log.warning
        )

    async def run(self) -> None:
        """Runs forever. A failed round is retried by the next one."""
        while True:
            await self._rounds.attempt(self.look)
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Load what is missing. Raises `RedisAway` or redis-py's errors, after all
        primaries were tried."""
        if not await self._leadership.hold():
            return
        failure: ProxyError | None = None
        for address in await self._client.finder.primaries():
            if address == self._client.finder.nodes.owner:
                self._blank.discard(address)
                continue
            try:
                await self._load(address)
            except ProxyError as error:
                failure = error
        if failure is not None:
            raise failure

    async def _load(self, address: Address) -> None:
        async with self._client.of_node(address) as node:
            caller = ClientCaller(node)
            functions = ControlFunctions(
                caller, "", library=self._library, keys=self._keys
            )
            await functions.load_library(anew=address not in self._blank)
        self._blank.add(address)
