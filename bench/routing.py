"""Measures what a routing call costs the Redis server, relative to an empty function
with the same arguments. Two measures of many short rounds:

- the CPU time of the server process (`INFO cpu`): reading, executing and answering
calls that are sent together, as gateways send them; the median;

- the time spent executing (`INFO commandstats`), without reading and answering. It is
wall time, which other processes can only increase: the minimum."""

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from bench.parts.servers import SERVER_CORE, STREAM, valkey
from libs.common.contracts.catalogue import Catalogue
from libs.common.redis.client import Caller
from libs.common.redis.keys import DEFAULT, Keys
from libs.common.redis.shared_connection import SharedConnection, connect
from libs.common.routing.functions import RoutingFunctions
from libs.common.routing.types import Ask, Release, digest, model_digest
from libs.common.settings.resources import resources_from_environment
from libs.common.upstream_answers.verdicts import Verdict
from services.router.function_library import library

SIZES = (4, 20, 200)
CALLS = 200  # of each kind in a round
ROUNDS = 20
SESSIONS = 50
EMPTY = """#!lua name=bench
redis.register_function('bench_empty', function(keys, args) return 1 end)
"""
HEAD = (
    b'{"id":"0199f0a2-0000-7000-8000-000000000001","created_at_ms":1760000000000,"method":"POST",'
    b'"path":"/v1/responses","gateway_id":"bench","session_id":"bench-1",'
    b'"model":"gpt-5","request_bytes":1024'
)
DECISION = (
    b'{"request_id":"0199f0a2-0000-7000-8000-000000000001","attempt":1,'
    b'"created_at_ms":1760000000000,"session_id":"bench-1","pool_id":null'
)
EVENT = HEAD + (
    b',"completed_at_ms":1760000001000,"resource_id":"openai-1","attempts":1,'
    b'"account_id":"openai-1","upstream_model":"gpt-5-2025-08-07",'
    b'"status_code":200,"outcome":"completed","latency_ms":812.3,'
    b'"upstream_ms":810.1,"overhead_ms":0.4,"input_tokens":200,'
    b'"cached_tokens":128,"output_tokens":250,"reasoning_tokens":10,'
    b'"total_tokens":450,"usage_state":"final","response_bytes":2048,'
    b'"response_id":"resp_bench"}'
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds per call."""

    cpu_us: float
    executing_us: float


Measured = dict[int, dict[str, Cost]]


class Bench:
    """The calls on one catalogue, timed by the server."""

    def __init__(self, redis: Redis, shared: Caller, keys: Keys = DEFAULT) -> None:
        self._redis = redis
        self._shared = shared
        self._keys = keys
        self._stream = STREAM if keys.is_default else keys.tagged_stream
        self._routing = RoutingFunctions(
            shared, self._stream, library=library(keys), keys=keys
        )
        self._number = 0
        self._chosen: dict[str, str] = {}

    async def prepare(self, resources: int) -> None:
        """Empty the server and publish a catalogue of this many resources."""
        await self._redis.flushall()
        await self._redis.execute_command(  # type: ignore[no-untyped-call]
            "FUNCTION", "LOAD", "REPLACE", EMPTY
        )
        await self.publish(resources)

    async def publish(self, resources: int) -> None:
        """Load the library, and publish such a catalogue, as a router does."""
        await self._routing.load_library()
        keys = ",".join(f"sk-bench-{number}" for number in range(resources))
        found = resources_from_environment(
            {"OPENAI_API_KEYS": keys}, "http://127.0.0.1:1/v1"
        )
        catalogue = Catalogue(version=f"b{resources}", resources=found)
        await self._routing.publish(catalogue, "published")

    async def request(self) -> None:
        """The calls of one request: acquire, and the release with its event."""
        ask = self._ask(named=True)
        await self._acquire(ask)
        await self._release(ask)

    async def tidy(self) -> None:
        """Store what was written, as ingest would."""
        await self._redis.xtrim(self._stream, maxlen=0, approximate=False)

    async def round(self) -> dict[str, Cost]:
        """The cost of calls of each kind."""
        await self.tidy()
        costs: dict[str, Cost] = {}
        for kind, named in (("by load", False), ("by session", True)):
            asks = [self._ask(named=named) for _ in range(CALLS)]
            acquires = [partial(self._acquire, ask) for ask in asks]
            costs[f"acquire {kind}"] = await self._time(acquires)
            releases = [partial(self._release, ask) for ask in asks]
            costs[f"release {kind}"] = await self._time(releases)
        costs["empty"] = await self._time([self._empty] * CALLS)
        return costs

    async def _time(self, calls: Sequence[Callable[[], Awaitable[object]]]) -> Cost:
        await self._redis.config_resetstat()
        before = await self._cpu_us()
        await asyncio.gather(*(call() for call in calls))
        spent = await self._cpu_us() - before
        stats: Any = await self._redis.info("commandstats")
        return Cost(spent / len(calls), float(stats["cmdstat_fcall"]["usec_per_call"]))

    async def _cpu_us(self) -> float:
        used: Any = await self._redis.info("cpu")
        return float(used["used_cpu_user"] + used["used_cpu_sys"]) * 1e6

    def _ask(self, *, named: bool) -> Ask:
        self._number += 1
        number = self._number
        session = f"bench-{number % SESSIONS}" if named else None
        return Ask(
            request_id=f"0199f0a2-0000-7000-8000-{number:012d}",
            decision_id=f"0199f0a2-0001-7000-8000-{number:012d}",
            attempt=1,
            gateway_id="bench",
            pool_id=None,
            session_id=session,
            session=digest(session) if session else "",
            model=model_digest("gpt-5"),
            bound=(),
            account_bound=False,
            tried=(),
            previous="",
            lease=HEAD,
            draw=number * 7919,
        )

    async def _acquire(self, ask: Ask) -> None:
        decision = await self._routing.acquire(ask)
        self._chosen[ask.request_id] = decision.resource_id

    async def _release(self, ask: Ask) -> None:
        await self._routing.release(self._released(ask))

    def _released(self, ask: Ask) -> Release:
        return Release(
            request_id=ask.request_id,
            gateway_id="bench",
            resource_id=self._chosen.pop(ask.request_id),
            verdict=Verdict(kind="ok", latency_ms=810.1),
            session=ask.session,
            model="gpt-5",
            learned=(digest(ask.request_id), digest(ask.decision_id)),
            event=EVENT,
        )

    def _empty(self) -> Awaitable[object]:
        """The empty counterpart of an acquire: same arguments, no work."""
        return self._shared.call(
            "FCALL", "bench_empty", 2, self._keys.catalogue_version(), self._stream,
            "bench", "0199f0a2-0000-7000-8000-000000000001", 1,
            "0199f0a2-0001-7000-8000-000000000001", "", digest("bench"),
            model_digest("gpt-5"), 0, 0, "", 7919, DECISION, HEAD, "", "", 0,
        )  # fmt: skip


async def measure(folder: Path) -> Measured:
    """The cost of each kind of call, by number of resources."""
    async with valkey(folder, core=SERVER_CORE) as (url, _):
        redis = connect(url)
        shared = SharedConnection(connect(url))
        await shared.open()
        bench = Bench(redis, shared)
        found = {}
        for size in SIZES:
            await bench.prepare(size)
            await bench.round()  # warm up: every resource verified, every session bound
            found[size] = _least([await bench.round() for _ in range(ROUNDS)])
        await shared.close()
        await redis.aclose()
    return found


def _least(rounds: Sequence[dict[str, Cost]]) -> dict[str, Cost]:
    return {
        kind: Cost(
            cpu_us=statistics.median(costs[kind].cpu_us for costs in rounds),
            executing_us=min(costs[kind].executing_us for costs in rounds),
        )
        for kind in rounds[0]
    }
