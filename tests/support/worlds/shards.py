"""Two shards of one stack: a node of a Redis Cluster each, all processes twice, and one
Postgres."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from libs.common.redis.keys import Keys
from libs.simulator.server import RunningSimulator
from tests.support.databases.sql import fetch
from tests.support.databases.valkey_cluster import ValkeyCluster, valkey_cluster
from tests.support.processes.fleet import Fleet, Plan, running_fleet
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

MODEL = "gpt-5.5"
KEYS = {"sk-sim-a": "acct-a", "sk-sim-b": "acct-b"}
SERVICES = "router", "health", "ingest"
NAMES = "b", "c"  # by their slots, on a node each


class Client:
    """Who has a proxy key."""

    def __init__(self, http: httpx.AsyncClient, minted: dict[str, Any]) -> None:
        self._http = http
        self.id = str(minted["id"])
        self.headers = {"authorization": f"Bearer {minted['secret']}"}

    async def ask(self, fleet: Fleet, **fields: Any) -> httpx.Response:
        body = {"model": MODEL, "input": "hi", **fields}
        url = f"{fleet.gateways[0].url}/responses"
        return await self._http.post(url, json=body, headers=self.headers)

    async def status(self, fleet: Fleet, **fields: Any) -> int:
        return (await self.ask(fleet, **fields)).status_code


class Shards:
    def __init__(self, cluster: ValkeyCluster, fleets: list[Fleet]) -> None:
        self.cluster = cluster
        self.one, self.other = fleets
        self.http = httpx.AsyncClient(timeout=30)

    @property
    def database(self) -> str:
        return self.one.database

    async def know_each_other(self) -> None:
        async def known() -> bool:
            return all(
                fleet.router.process.logged("shard_found", shard=name)
                for fleet, name in ((self.one, NAMES[1]), (self.other, NAMES[0]))
            )

        await eventually(known, every_s=0.5)

    async def admin(
        self, fleet: Fleet, method: str, path: str, **body: Any
    ) -> dict[str, Any]:
        url = f"{fleet.admin}/{path}"
        answer = await self.http.request(method, url, json=body or None)
        answer.raise_for_status()
        told: dict[str, Any] = answer.json()
        return told

    async def mint(self, fleet: Fleet, **fields: Any) -> Client:
        body = fields or {"name": "k"}
        return Client(self.http, await self.admin(fleet, "POST", "keys", **body))

    async def spent(self, fleet: Fleet, place: str) -> int | None:
        """Tokens of a key or team, as the admin API of a shard tells them."""
        row = await self.admin(fleet, "GET", place)
        return row["spend"] and int(row["spend"]["tokens"])

    async def agree(self, place: str, column: str) -> bool:
        """Whether both shards and SQL have the same spend of a key or a team."""
        id_ = place.partition("/")[2]
        query = f"SELECT sum(total_tokens)::bigint FROM requests WHERE {column} = "
        ((stored,),) = self.rows(f"{query} '{id_}'")
        told = [await self.spent(fleet, place) for fleet in (self.one, self.other)]
        return told == [stored, stored]

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return fetch(self.database, query)

    async def lose_node(self, name: str) -> None:
        (await self.cluster.owner(Keys(name))).server.kill()

    async def empty_node(self, name: str) -> None:
        await (await self.cluster.owner(Keys(name))).ask("FLUSHALL")


async def within(condition: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """It is so at once, or soon. The machine may be busy: twice the time is allowed."""
    began = time.monotonic()
    await eventually(condition)
    took = time.monotonic() - began
    assert took < 2 * seconds, f"took {took:.1f} s"


@asynccontextmanager
async def running_shards(database: str, folder: Path) -> AsyncIterator[Shards]:
    (folder / "nodes").mkdir()
    async with valkey_cluster(folder / "nodes") as cluster, Simulator(KEYS) as upstream:
        for node in cluster.nodes:
            # The others go on without a lost node.
            await node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
        async with (
            shard(NAMES[0], cluster.url, upstream, database, folder) as one,
            shard(NAMES[1], cluster.url, upstream, database, folder) as other,
        ):
            shards = Shards(cluster, [one, other])
            await shards.know_each_other()
            yield shards
            await shards.http.aclose()


@asynccontextmanager
async def shard(
    name: str, redis_url: str, upstream: RunningSimulator, database: str, folder: Path
) -> AsyncIterator[Fleet]:
    place = folder / name
    place.mkdir()
    settings = {
        "PROXY_REDIS_NAMESPACE": name,
        "PROXY_DATABASE_URL": database,
        "PROVIDER_ACME": next(iter(KEYS)),
        "PROXY_INGEST_CLAIM_SECONDS": "2",
    }
    plan = Plan(KEYS, 1, SERVICES, settings)
    async with running_fleet(plan, upstream, redis_url, place) as fleet:
        await fleet.has_tables()
        yield fleet
