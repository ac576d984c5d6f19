"""A whole product of which a test breaks a part, and what then tells it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from libs.simulator.server import RunningSimulator
from tests.support.clients.alerting import Scrapes, fires
from tests.support.clients.attention import attention, page_says, words
from tests.support.clients.chromium import Page
from tests.support.clients.scrapes import scraped
from tests.support.databases.postgres import Server
from tests.support.databases.valkey import Valkey
from tests.support.processes.fleet import Fleet, Member
from tests.support.processes.waiting import eventually
from tests.support.values.outages import Line, Outage, outages

ASK = {"model": "gpt-5.5", "input": "hello"}
SOON_S = 60.0  # parts look at each other every five seconds
Check = Callable[[float], bool]


@dataclass
class World:
    """The whole product, of which a test breaks a part."""

    fleet: Fleet
    simulator: RunningSimulator
    valkey: Valkey
    postgres: Server
    folder: Path
    page: Page  # the overview, open since nothing was wrong
    more: list[Member] = field(default_factory=list)  # gateways of single tests

    def members(self, service: str) -> list[Member]:
        if service == "gateway":
            return [*self.fleet.gateways, *self.more]
        return [self.fleet.services[service]]

    def logged(self, line: Line) -> int:
        """How often a line was logged so far."""
        fields = {"part": line.part} if line.part else {}
        return sum(
            len(member.process.logged(line.action, **fields))
            for member in self.members(line.service)
        )

    async def scrapes(self) -> Scrapes:
        """Of all processes that run."""
        return {
            (service, member.origin): await scraped(member.origin)
            for service in ("gateway", *self.fleet.services)
            for member in self.members(service)
            if member.process.alive
        }

    async def ask(self, gateway: Member | None = None) -> httpx.Response:
        url = (gateway or self.fleet.gateways[0]).url
        async with httpx.AsyncClient(timeout=30) as http:
            return await http.post(f"{url}/responses", json=ASK)

    async def gateway(self, name: str) -> Member:
        """One more, with a folder of its own."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        log = self.folder / f"{name}.log"
        more = self.fleet.gateways[0].twin(log, PROXY_DATA_DIR=str(folder))
        self.more.append(more)
        await more.ready()

        async def serves() -> bool:
            return (await self.ask(more)).status_code == 200

        await eventually(serves)
        return more

    async def calm(self) -> None:
        """Wait until nothing is wrong, and the page says so."""

        async def nothing() -> bool:
            return (
                await attention(self.fleet.gateways[0].origin) == []
                and await self.page.sees("#live") == "live"
                and await self.page.sees("#wrong-title") == "Nothing is wrong now"
            )

        await eventually(nothing, within_s=SOON_S)


class Row:
    """A row of the table, and what of it was seen."""

    def __init__(
        self, outage: Outage, world: World, counts: dict[Line, int], before: Scrapes
    ) -> None:
        self._outage = outage
        self._world = world
        self._counts = counts
        self._before = before
        self._seen: set[object] = set()

    @classmethod
    async def of(cls, down: str, world: World) -> "Row":
        """Before it is broken."""
        outage = outages()[down]
        counts = {line: world.logged(line) for line in outage.lines}
        return cls(outage, world, counts, await world.scrapes())

    async def logs(self, service: str, action: str, part: str = "") -> None:
        line = Line(service, action, part)
        assert line in self._outage.lines, "not in the table"

        async def told() -> bool:
            return self._world.logged(line) > self._counts[line]

        await eventually(told, within_s=SOON_S)
        self._seen.add(line)

    async def measures(self, service: str, metric: str, is_: Check, **of: str) -> None:
        """One process of the service at least has a series with such a value."""
        assert metric in self._outage.metrics, "not in the table"

        async def told() -> bool:
            return any(
                is_(value)
                for (job, _), scrape in (await self._world.scrapes()).items()
                for (name, labels), value in scrape.samples.items()
                if (job, name) == (service, metric)
                and of.items() <= dict(labels).items()
            )

        await eventually(told, within_s=SOON_S)
        self._seen.add(metric)

    async def alerts(self, name: str, *grows: str) -> None:
        assert name in self._outage.alerts, "not in the table"
        during, folder = await self._world.scrapes(), self._world.folder
        before = self._before
        assert not await asyncio.to_thread(fires, name, before, before, folder)
        assert await asyncio.to_thread(
            fires, name, before, during, folder, grows=grows
        ), name
        self._seen.add(name)

    async def says(self, kind: str, subject: str, phrase: str) -> None:
        """What the overview of the dashboard lists, as the API does and on the page."""
        origin, page = self._world.fleet.gateways[0].origin, self._world.page

        async def said() -> bool:
            item = words(await attention(origin), kind, subject)
            return (
                item is not None
                and phrase in item["text"]
                and bool(item["to_do"])
                and await page_says(page, item)
            )

        await eventually(said, within_s=SOON_S)

    async def page_shows(self, selector: str, phrase: str) -> None:
        async def shown() -> bool:
            return phrase in (await self._world.page.sees(selector) or "")

        await eventually(shown, within_s=SOON_S)

    def is_told(self) -> None:
        """Nothing of the row is left."""
        outage = self._outage
        assert self._seen == outage.lines | outage.metrics | outage.alerts
