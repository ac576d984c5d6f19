"""Measures how soon one shard of a stack knows what was done in another:
`python -m bench.shards`, two minutes.

Two shards with all their processes, on a node each of a Redis Cluster, with one
Postgres and the simulated upstream (tests/support/worlds/shards.py): how long until the
other shard serves a new proxy key, refuses a revoked one, and counts what was spent.
Then clients spend in both while routers and ingest processes are killed, and the spend
of both is compared with SQL."""

import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from tests.support.databases.postgres import fresh_database, running_postgres
from tests.support.processes.fleet import Fleet
from tests.support.processes.waiting import eventually
from tests.support.worlds.shards import Client, Shards, running_shards

TIMES = 20
KEYS = 4
LONGEST_S = 280
MUCH = 10**9  # tokens, a budget
EVERY_S = 0.02


async def seconds(condition: Callable[[], Awaitable[bool]]) -> float:
    began = time.monotonic()
    await eventually(condition, every_s=EVERY_S)
    return time.monotonic() - began


async def at_some_moment() -> None:
    """Of the second between two looks of the routers."""
    await asyncio.sleep(random.random())  # noqa: S311


async def of_keys(shards: Shards) -> tuple[list[float], list[float]]:
    """Until new keys are served, and until revoked ones are refused."""
    made, revoked = [], []
    for _ in range(TIMES):
        key = await shards.mint(shards.one)

        async def answers(status: int, key: Client = key) -> bool:
            return await key.status(shards.other) == status

        made.append(await seconds(lambda: answers(200)))
        await at_some_moment()
        await shards.admin(shards.one, "DELETE", f"keys/{key.id}")
        revoked.append(await seconds(lambda: answers(401)))
    return made, revoked


async def of_spend(shards: Shards) -> list[float]:
    key = await shards.mint(shards.one, budget_tokens=MUCH)
    place, found = f"keys/{key.id}", []
    await eventually(lambda: served(shards, [key]))
    for _ in range(TIMES):
        await eventually(lambda: shards.agree(place, "proxy_key_id"))
        await at_some_moment()
        before = await shards.spent(shards.other, place)
        assert await key.status(shards.one) == 200

        async def counted(before: int | None = before) -> bool:
            return await shards.spent(shards.other, place) != before

        found.append(await seconds(counted))
    return found


async def served(shards: Shards, keys: list[Client]) -> bool:
    fleets = shards.one, shards.other
    asked = [k.status(f, max_output_tokens=50) for k in keys for f in fleets]
    return set(await asyncio.gather(*asked)) == {200}


class Spenders:
    """Clients that spend in both shards until it is over."""

    def __init__(self, shards: Shards, keys: list[Client]) -> None:
        self._fleets = shards.one, shards.other
        self._keys = keys
        self.statuses: Counter[str] = Counter()
        self._over = False

    async def spend(self) -> None:
        async with asyncio.TaskGroup() as group:
            for key in self._keys:
                for fleet in self._fleets:
                    group.create_task(self._ask(key, fleet))
            await self._kill_all()
            self._over = True

    async def _ask(self, key: Client, fleet: Fleet) -> None:
        while not self._over:
            try:
                self.statuses[f"{await key.status(fleet)}"] += 1
            except httpx.HTTPError as error:
                self.statuses[type(error).__name__] += 1

    async def _kill_all(self) -> None:
        for service in ("router", "ingest"):
            for fleet in self._fleets:
                await asyncio.sleep(2)
                fleet.services[service].process.kill()
                await asyncio.sleep(2)
                fleet.services[service].start_anew()
        await asyncio.sleep(2)


async def of_deaths(shards: Shards) -> str:
    await shards.admin(shards.one, "POST", "teams", id="all", budget_tokens=MUCH)
    terms = {"team_id": "all", "budget_tokens": MUCH}
    keys = [await shards.mint(shards.one, **terms) for _ in range(KEYS)]
    await eventually(lambda: served(shards, keys))
    spenders = Spenders(shards, keys)
    await spenders.spend()
    await eventually(lambda: shards.agree("teams/all", "team_id"))
    for key in keys:
        await eventually(lambda: shards.agree(f"keys/{key.id}", "proxy_key_id"))  # noqa: B023
    counts = spenders.statuses.items()
    told = ", ".join(f"{count} answers {status}" for status, count in counts)
    return f"{told}; spend of {KEYS} keys and their team agrees in both, and with SQL"


def line(name: str, found: list[float]) -> str:
    return f"{name:<34}{statistics.median(found):>8.2f}{max(found):>8.2f}"


async def measure(server: str, folder: Path) -> None:
    with fresh_database(server) as database:
        async with asyncio.timeout(LONGEST_S), running_shards(database, folder) as made:
            print(f"{'seconds until the other shard':<34}{'median':>8}{'most':>8}")
            served_after, refused_after = await of_keys(made)
            print(line("serves a new key", served_after))
            print(line("refuses a revoked key", refused_after))
            print(line("counts what was spent", await of_spend(made)))
            print(await of_deaths(made))


def main() -> int:
    with running_postgres() as server, tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(server, Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
