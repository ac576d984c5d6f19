"""The whole product under load while its processes, Redis and Postgres are killed, and
afterwards a comparison of clients, ledger and SQL."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg

from libs.cli.commands import simulator_command
from tests.support.databases.postgres import Server, postgres_that_stops
from tests.support.databases.sql import fetch
from tests.support.databases.valkey import Valkey
from tests.support.processes.asking import Heard, ask
from tests.support.processes.fleet import PORTS, Member
from tests.support.processes.ports import free_port
from tests.support.processes.processes import Process, wait_for

KEYS = {"sk-a1": "a", "sk-a2": "a", "sk-b1": "b", "sk-b2": "b"}
ENDS = {"completed", "failed", "cancelled", "interrupted"}
EVENT_GAP_MS = 10
AFTER_FAILURE_S = 0.05
POLL_S = 0.5


@dataclass(frozen=True)
class Scale:
    """The size of a run."""

    answers: int  # at least this many complete answers
    rounds: int  # at least this many rounds of kills
    at_once: int
    postgres_away_s: float
    between_s: tuple[float, float]  # seconds from one kill to the next
    settled_within_s: float = 60.0
    gateways: int = 3
    seed: int = 1
    # The upstream is slow, so that a killed process has requests in progress.
    delay_ms: int = 60


@dataclass
class Outcome:
    """The result of a run."""

    heard: Heard
    kills: Counter[str]
    ledger: dict[str, Any]  # its last state
    alarms: list[list[str]]  # whenever the ledger reported that it is not balanced
    ledgers: int  # how often the ledger was read successfully
    rows: list[tuple[str, str]]  # id, outcome
    undecided: int  # complete answers whose decision is not in SQL
    seconds: float

    def ends(self) -> Counter[str]:
        return Counter(end for _, end in self.rows)

    def faults(self) -> list[str]:
        """Violations of the guarantee; empty if there are none."""
        ids = Counter(id_ for id_, _ in self.rows)
        ends = dict(self.rows)
        lost = [id_ for id_ in self.heard.answered if id_ not in ends]
        begun = [id_ for id_ in self.heard.begun if id_ not in ends]
        wrong = [
            i for i in self.heard.answered if ends.get(i) not in (None, "completed")
        ]
        found = {
            "answered and not stored": len(lost),
            "begun and not stored": len(begun),
            "answered and not completed": len(wrong),
            "stored twice": sum(count - 1 for count in ids.values()),
            "without an end": sum(end not in ENDS for end in ends.values()),
            "not in the ledger": abs(self.ledger["accepted"] - len(ends)),
            "not settled": sum(
                self.ledger[name] for name in ("pending", "in_flight", "dead_lettered")
            ),
            "unbalanced": int(self.ledger["balanced"] is not True),
            "unverified": len(self.ledger["unverified"]),
        }
        alarms = [f"false alarm: {'; '.join(alarm)}" for alarm in self.alarms]
        return [f"{count} {what}" for what, count in found.items() if count] + alarms


@dataclass
class Scene:
    """Everything that runs."""

    valkey: Valkey
    postgres: Server
    database: str
    gateways: list[Member]
    router: Member
    health: Member
    ingests: list[Member]

    async def ledger(self) -> dict[str, Any] | None:
        """None while the router is unreachable."""
        async with httpx.AsyncClient(timeout=10) as client:
            try:
                answer = await client.get(f"{self.router.origin}/admin/ledger")
            except httpx.HTTPError:
                return None
        return dict(answer.json()) if answer.status_code == 200 else None


@asynccontextmanager
async def scene(scale: Scale, folder: Path) -> AsyncIterator[Scene]:
    """Everything started and ready."""
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(postgres_that_stops())
        with psycopg.connect(f"{postgres.url}/postgres", autocommit=True) as admin:
            admin.execute("CREATE DATABASE havoc TEMPLATE template0")
        valkey = Valkey(folder)
        valkey.start()
        stack.callback(valkey.kill)
        upstream = free_port()
        keys = ",".join(f"{key}={account}" for key, account in KEYS.items())
        simulator = Process(
            simulator_command("127.0.0.1", upstream, keys), {}, folder / "upstream.log"
        )
        stack.callback(simulator.kill)
        await _slow_down(
            simulator, f"http://127.0.0.1:{upstream}/__sim", scale.delay_ms
        )
        common = {
            "PROXY_REDIS_URL": valkey.url,
            "PROXY_DATABASE_URL": f"{postgres.url}/havoc",
            "PROXY_UPSTREAM_BASE_URL": f"http://127.0.0.1:{upstream}/v1",
            "PROXY_DATA_DIR": str(folder),
            "PROXY_INGEST_CLAIM_SECONDS": "3",
            "PROXY_GATEWAY_SILENCE_SECONDS": "3",
            "OPENAI_API_KEYS": ",".join(KEYS),
            "OPENAI_RESOURCE_ACCOUNT_IDS": ",".join(KEYS.values()),
            PORTS["router"]: str(free_port()),
        }

        def member(name: str, number: int) -> Member:
            env = {**common, PORTS[name]: common.get(PORTS[name], str(free_port()))}
            made = Member(name, env, folder / f"{name}-{number}.log")
            stack.push_async_callback(made.end)
            return made

        made = Scene(
            valkey=valkey,
            postgres=postgres,
            database=common["PROXY_DATABASE_URL"],
            ingests=[member("ingest", n) for n in range(2)],
            router=member("router", 0),
            health=member("health", 0),
            gateways=[member("gateway", n) for n in range(scale.gateways)],
        )
        for each in (*made.ingests, made.router, made.health, *made.gateways):
            await each.ready()
        for gateway in made.gateways:
            url = f"{gateway.origin}/readyz"
            await asyncio.to_thread(wait_for, gateway.process, url)
        yield made


async def _slow_down(simulator: Process, control: str, delay_ms: int) -> None:
    await asyncio.to_thread(wait_for, simulator, f"{control}/faults")
    async with httpx.AsyncClient(timeout=60) as client:
        pace = {"delay_ms": delay_ms, "event_gap_ms": EVENT_GAP_MS}
        script = {"times": None, "fault": pace}
        (await client.post(f"{control}/faults", json=script)).raise_for_status()


# Clients ------------------------------------------------------------------------


async def _ask_on(
    scene: Scene, scale: Scale, heard: Heard, enough: Callable[[], bool]
) -> None:
    """Send one request after the other, whatever their results."""
    numbers = itertools.count()
    limits = httpx.Limits(max_connections=scale.at_once * 2)

    async def client(http: httpx.AsyncClient) -> None:
        while not enough():
            number = next(numbers)
            gateway = scene.gateways[number % len(scene.gateways)]
            try:
                await ask(http, gateway, heard, stream=number % 3 == 0)
            except httpx.HTTPError as error:
                heard.failed[type(error).__name__] += 1
                await asyncio.sleep(AFTER_FAILURE_S)

    async with httpx.AsyncClient(timeout=30, limits=limits) as http:
        await asyncio.gather(*(client(http) for _ in range(scale.at_once)))


# Kills --------------------------------------------------------------------------


class Killer:
    """Kills processes in turn until it is told to stop; then everything runs again."""

    def __init__(self, scene: Scene, scale: Scale) -> None:
        self._scene = scene
        self._scale = scale
        self._draw = random.Random(scale.seed)  # noqa: S311 - repeatable
        self.kills: Counter[str] = Counter()
        self.rounds = 0

    def _turns(self) -> Sequence[tuple[str, Callable[[], Awaitable[None]]]]:
        at_scene = self._scene
        gateways = itertools.cycle(at_scene.gateways)
        ingests = itertools.cycle(at_scene.ingests)
        return (
            ("gateway", lambda: self._members(next(gateways))),
            ("ingest", lambda: self._members(next(ingests))),
            ("redis", self._redis),
            ("router", lambda: self._members(at_scene.router)),
            ("gateway and redis", lambda: self._redis(next(gateways))),
            ("both ingests", lambda: self._members(*at_scene.ingests)),
            ("postgres", self._postgres),
            ("health", lambda: self._members(at_scene.health)),
            ("redis and ingest", lambda: self._redis(next(ingests))),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """A turn is always completed: what was killed is restarted."""
        turns = self._turns()
        while True:
            for name, kill in turns:
                await asyncio.sleep(self._draw.uniform(*self._scale.between_s))
                if stop.is_set():
                    return
                await kill()
                self.kills[name] += 1
            self.rounds += 1

    async def _members(self, *members: Member) -> None:
        for member in members:
            member.process.kill()
        await asyncio.sleep(self._draw.uniform(0.1, 1.0))
        for member in members:
            member.start_anew()
        for member in members:
            await member.ready()

    async def _redis(self, *members: Member) -> None:
        self._scene.valkey.kill()
        for member in members:
            member.process.kill()
        await asyncio.sleep(self._draw.uniform(0.1, 1.0))
        await asyncio.to_thread(self._scene.valkey.start)
        for member in members:
            member.start_anew()
        for member in members:
            await member.ready()

    async def _postgres(self) -> None:
        await asyncio.to_thread(self._scene.postgres.stop)
        await asyncio.sleep(self._scale.postgres_away_s)
        await asyncio.to_thread(self._scene.postgres.start)


# The run ------------------------------------------------------------------------


class Watch:
    """Polls the ledger throughout the run."""

    def __init__(self, at_scene: Scene) -> None:
        self._scene = at_scene
        self.alarms: list[list[str]] = []
        self.asked = 0

    async def run(self) -> None:
        while True:
            ledger = await self._scene.ledger()
            if ledger is not None:
                self.asked += 1
                if ledger["balanced"] is False:
                    self.alarms.append(ledger["problems"])
            await asyncio.sleep(POLL_S)

    async def settled(self, within_s: float) -> dict[str, Any]:
        """The ledger once everything is accounted for, or its last state."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + within_s
        while True:
            ledger = await self._scene.ledger()
            if loop.time() > ends:
                assert ledger is not None, "the router does not answer"
                return ledger
            if ledger and _is_settled(ledger):
                return ledger
            await asyncio.sleep(POLL_S)


def _is_settled(ledger: dict[str, Any]) -> bool:
    waiting = (ledger[name] for name in ("pending", "in_flight", "queue_depth"))
    return ledger["balanced"] is True and not any((*waiting, ledger["unverified"]))


async def wreak(at_scene: Scene, scale: Scale) -> Outcome:
    """Load and kills together; then wait until the ledger is balanced."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    heard, stop = Heard(), asyncio.Event()
    killer, watch = Killer(at_scene, scale), Watch(at_scene)

    def enough() -> bool:
        assert not tasks[0].done(), tasks[0].exception()
        return len(heard.answered) >= scale.answers and killer.rounds >= scale.rounds

    tasks = [asyncio.create_task(killer.run(stop)), asyncio.create_task(watch.run())]
    try:
        await _ask_on(at_scene, scale, heard, enough)
        stop.set()
        await tasks[0]
        ledger = await watch.settled(scale.settled_within_s)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    rows: Any = fetch(at_scene.database, "SELECT id, outcome FROM requests")
    decided = fetch(at_scene.database, "SELECT DISTINCT request_id FROM decisions")
    return Outcome(
        heard=heard,
        kills=killer.kills,
        ledger=ledger,
        alarms=watch.alarms,
        ledgers=watch.asked,
        rows=rows,
        undecided=len(set(heard.answered) - {row[0] for row in decided}),
        seconds=loop.time() - began,
    )
