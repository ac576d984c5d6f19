"""Two proxy keys at two gateways, with 100 and 2 agents, and room for 20 requests: each
key gets its fair share, and the small one hardly waits."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio

from tests.support.clients.raw import Caller
from tests.support.databases.sql import fetch
from tests.support.databases.valkey import empty
from tests.support.processes.fleet import Fleet, Member, Plan, running_fleet
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
    pytest.mark.alone,  # waits include those of processes for a core
]
KEYS = {f"sk-sim-{n}": f"acct-{n}" for n in range(4)}
MOST = 5  # requests in flight on each of them
ROOM = MOST * len(KEYS)
LARGE, SMALL = 100, 2  # agents
UPSTREAM_S = 1.0  # a request upstream
ALONE = 2  # requests of each agent of the small key, alone
MEASURED = 8  # the same beside the large key
FAIR = SMALL / ROOM  # two agents use two of the twenty
NEAR = 0.1
ASK = '{"model":"gpt-5.5","input":"hi"}'
PLAN = Plan(
    KEYS,
    gateways=2,
    services=("router", "ingest"),
    settings={"PROXY_MAX_IN_FLIGHT": str(MOST), "PROXY_QUEUE_MAX_SECONDS": "20"},
)


@dataclass
class Key:
    """A proxy key: its request, and what its agents were answered, and when."""

    request: bytes
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def forget(self) -> None:
        self.seconds.clear()
        self.statuses.clear()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Fleet]:
    empty(valkey_server)
    folder: Path = tmp_path_factory.mktemp("fairness")
    async with (
        Simulator(KEYS) as simulator,
        running_fleet(PLAN, simulator, valkey_server, folder) as fleet,
        httpx.AsyncClient(timeout=60) as http,
    ):
        script = {"key": "*", "times": None, "fault": {"delay_ms": UPSTREAM_S * 1000}}
        url = f"{simulator.control_url}/faults"
        (await http.post(url, json=script)).raise_for_status()
        yield fleet


async def mint(fleet: Fleet, name: str) -> Key:
    async with httpx.AsyncClient(timeout=60) as http:
        answer = await http.post(f"{fleet.admin}/keys", json={"name": name})
    answer.raise_for_status()
    head = (
        "POST /v1/responses HTTP/1.1",
        "host: 127.0.0.1",
        "content-type: application/json",
        f"authorization: Bearer {answer.json()['secret']}",
        f"content-length: {len(ASK)}",
    )
    return Key("\r\n".join([*head, "", ASK]).encode())


async def agent(fleet: Fleet, key: Key, number: int, times: int = 10**6) -> None:
    """Sends one request after the other."""
    at = urlsplit(fleet.gateways[number % 2].url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    caller = Caller(reader, writer)
    try:
        for _ in range(times):
            began = time.perf_counter()
            writer.write(key.request)
            status, headers = await caller.head()
            await reader.readexactly(int(headers["content-length"]))
            key.seconds.append(time.perf_counter() - began)
            key.statuses[status] += 1
    finally:
        writer.close()


async def agents(fleet: Fleet, key: Key, times: int) -> None:
    await asyncio.gather(*(agent(fleet, key, n, times) for n in range(SMALL)))


async def waiting(fleet: Fleet) -> Any:
    return (await fleet.state())["waiting"]


@dataclass(frozen=True)
class Measured:
    """Both keys at the same time. `alone_s`: a request of the small one before."""

    alone_s: float
    served: int  # of the large key
    small_s: list[float]
    large_s: list[float]

    @property
    def share(self) -> float:
        """What the small key got."""
        return len(self.small_s) / (len(self.small_s) + self.served)

    @property
    def p95_wait_s(self) -> float:
        return quantiles(self.small_s, n=20)[-1] - self.alone_s

    def table(self) -> str:
        lines = [
            "| key | agents | requests | share | fair share | p50 ms | p95 ms |",
            "|---|---|---|---|---|---|---|",
        ]
        for name, count, share, fair, took_s in (
            ("large", LARGE, 1 - self.share, 1 - FAIR, self.large_s),
            ("small", SMALL, self.share, FAIR, self.small_s),
        ):
            p50, p95 = median(took_s), quantiles(took_s, n=20)[-1]
            lines.append(
                f"| {name} | {count} | {len(took_s)} | {share:.1%} | {fair:.0%} "
                f"| {p50 * 1000:.0f} | {p95 * 1000:.0f} |"
            )
        wait_ms, alone_ms = self.p95_wait_s * 1000, self.alone_s * 1000
        lines.append(f"small: p95 wait {wait_ms:.0f} ms; uncontended {alone_ms:.0f} ms")
        return "\n".join(lines)


@asynccontextmanager
async def crowd(fleet: Fleet, key: Key) -> AsyncIterator[None]:
    """All agents of the large key; they leave at the end."""
    tasks = []
    try:
        for number in range(LARGE):
            tasks.append(asyncio.create_task(agent(fleet, key, number)))
            # The first come one by one, so that requests do not end all at once.
            if number < ROOM:
                await asyncio.sleep(UPSTREAM_S / ROOM)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def measured(fleet: Fleet, large: Key, small: Key) -> Measured:
    await agents(fleet, small, ALONE)
    alone_s = median(small.seconds)
    async with crowd(fleet, large):
        queue = await eventually(lambda: crowded(fleet))
        assert (queue["pool_id"], queue["account_id"]) == (None, None)
        assert queue["requests"] < LARGE
        large.forget()
        small.forget()
        await agents(fleet, small, MEASURED)
        served = len(large.seconds)
        assert all(n <= MOST for n in (await fleet.in_flight()).values())
        for gateway in fleet.gateways:
            shown = await metrics(gateway)
            assert shown["proxy_requests_waiting"] > MOST
            assert shown["proxy_queue_wait_seconds_count"] > MOST
    return Measured(alone_s, served, small.seconds, large.seconds[:served])


async def test_a_key_with_a_hundred_agents_does_not_starve_one_with_two(
    fleet: Fleet,
) -> None:
    large, small = await mint(fleet, "large"), await mint(fleet, "small")
    found = await measured(fleet, large, small)
    print(found.table())  # noqa: T201
    assert abs(found.share / FAIR - 1) <= NEAR
    assert abs((1 - found.share) / (1 - FAIR) - 1) <= NEAR
    assert found.p95_wait_s < 3 * found.alone_s
    assert large.statuses.keys() | small.statuses.keys() == {200}
    # Those that left hold no place, no lease, and their rows say that they left.
    assert await eventually(lambda: at_rest(fleet))
    rows = await asyncio.to_thread(fetch, fleet.database, ENDS)
    assert {outcome for outcome, *_ in rows} == {"completed", "cancelled"}
    waited = [ms for outcome, ms in rows if outcome == "completed" and ms is not None]
    assert max(waited) > UPSTREAM_S * 1000


ENDS = """
SELECT outcome, waited_ms
FROM requests LEFT JOIN decisions ON decisions.request_id = requests.id
"""


async def crowded(fleet: Fleet) -> Any:
    """The queue, once more requests wait than are served."""
    (queue,) = await waiting(fleet) or ({"requests": 0},)
    return queue if queue["requests"] > ROOM else None


async def at_rest(fleet: Fleet) -> bool:
    return await waiting(fleet) == [] and await fleet.settled()


async def metrics(gateway: Member) -> dict[str, float]:
    async with httpx.AsyncClient(timeout=60) as http:
        text = (await http.get(f"{gateway.origin}/metrics")).text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines)}
