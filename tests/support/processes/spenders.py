"""Agents that spend the budget of one key over several gateways, by HTTP, SSE and
sockets, while Redis is killed and starts empty. Afterwards SQL, Redis and the usages
that the agents saw are compared."""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from redis.exceptions import RedisError
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import WebSocketException

from libs.common.errors import NoCatalogue
from libs.common.redis.client import ClientCaller
from libs.common.redis.shared_connection import connect
from libs.common.routing.budgets import KNOWN, Spend
from libs.common.routing.functions import RoutingFunctions
from tests.support.databases.sql import fetch
from tests.support.processes.havoc import Scene
from tests.support.processes.waiting import eventually

MOST_OUTPUT = 100  # more than the simulator's answers take
ASK = {"model": "gpt-5.5", "input": "Say hello", "max_output_tokens": MOST_OUTPUT}
AGAIN_S = 0.1
SPENT = "insufficient_quota"
GUARD_S = 180.0  # nothing here takes as long unless it fails


@dataclass(frozen=True)
class Plan:
    """The budget is what the agents use in about `share` of `seconds`. Redis is killed
    when a third of it is spent."""

    agents: int
    seconds: float
    reserve: bool
    share: float = 0.7
    away_s: float = 0.5


@dataclass
class Seen:
    """What agents saw."""

    tokens: int = 0
    largest: int = 0
    answers: Counter[str] = field(default_factory=Counter)  # by transport
    refused: Counter[str] = field(default_factory=Counter)

    def used(self, transport: str, response: dict[str, Any]) -> None:
        tokens = response["usage"]["total_tokens"]
        self.tokens += tokens
        self.largest = max(self.largest, tokens)
        self.answers[transport] += 1


@dataclass(frozen=True)
class Result:
    """What was spent, by three counts."""

    plan: Plan
    budget: int
    seen: Seen
    sql: int
    redis: Spend
    spent_agents: int  # that were told that the budget is spent
    known_again: int  # tokens that were used when Redis had its sums again

    @property
    def overshoot(self) -> int:
        return self.sql - self.budget

    def faults(self) -> list[str]:
        """Violations of what docs/budgets.md promises. While Redis is away, a gateway
        does not see what others use: a budget without reservation that is spent in
        that time is exceeded by this too."""
        unseen = max(0, self.known_again - self.budget)
        in_flight = self.plan.agents * self.seen.largest
        most = 0 if self.plan.reserve else unseen + in_flight
        found = {
            "SQL and the agents differ": self.sql != self.seen.tokens,
            "Redis and SQL differ": self.redis.tokens != self.sql,
            "Redis is not sure": self.redis.sure != KNOWN,
            "tokens stay reserved": self.redis.reserved != 0,
            "more than what was in flight is over the budget": self.overshoot > most,
            "the budget was not spent": self.spent_agents == 0,
        }
        return [fault for fault, is_so in found.items() if is_so]


class Agents:
    """Use one key until its budget is spent, or it is time to stop."""

    def __init__(self, scene: Scene, secret: str) -> None:
        self._scene = scene
        self._auth = {"authorization": f"Bearer {secret}"}
        self.seen = Seen()
        self.stopped = 0

    async def spend(self, count: int, seconds: float) -> None:
        ends = time.monotonic() + seconds
        ways = itertools.cycle((self._http, self._sse, self._socket))
        limits = httpx.Limits(max_connections=count)
        async with httpx.AsyncClient(timeout=30, limits=limits) as http:
            await asyncio.gather(
                *(self._agent(http, n, next(ways), ends) for n in range(count))
            )

    async def _agent(
        self, http: httpx.AsyncClient, number: int, ask: Any, ends: float
    ) -> None:
        gateways = self._scene.gateways
        gateway = gateways[number % len(gateways)]
        while time.monotonic() < ends:
            code = await ask(http, gateway.url, ends)
            if code == SPENT:
                self.stopped += 1
                return
            if code:
                self.seen.refused[code] += 1
                await asyncio.sleep(AGAIN_S)

    async def _http(self, http: httpx.AsyncClient, url: str, _: float) -> str:
        answer = await http.post(f"{url}/responses", json=ASK, headers=self._auth)
        if answer.status_code != 200:
            return _code(answer)
        self.seen.used("HTTP", answer.json())
        return ""

    async def _sse(self, http: httpx.AsyncClient, url: str, _: float) -> str:
        body = {**ASK, "stream": True}
        answer = await http.post(f"{url}/responses", json=body, headers=self._auth)
        if answer.status_code != 200:
            return _code(answer)
        for line in answer.text.splitlines():
            if line.startswith("data: ") and '"response.completed"' in line:
                self.seen.used("SSE", json.loads(line[6:])["response"])
        return ""

    async def _socket(self, _: httpx.AsyncClient, url: str, ends: float) -> str:
        """Turns on one socket, until one is refused."""
        address = url.replace("http", "ws", 1) + "/responses"
        try:
            async with open_socket(address, additional_headers=self._auth) as socket:
                while time.monotonic() < ends:
                    code = await self._turn(socket)
                    if code:
                        return code
        except (WebSocketException, OSError) as error:
            return type(error).__name__
        return ""

    async def _turn(self, socket: Any) -> str:
        await socket.send(json.dumps({"type": "response.create", **ASK}))
        while True:
            event = json.loads(await socket.recv())
            if event["type"] == "error":
                return str(event["error"]["code"])
            if event["type"] == "response.completed":
                self.seen.used("WebSocket", event["response"])
                return ""


def _code(answer: httpx.Response) -> str:
    assert answer.status_code != 429 or "x-proxy-request-id" in answer.headers
    code = str(answer.json()["error"]["code"])
    if code == SPENT:
        assert "retry-after" not in answer.headers
        assert answer.json()["error"]["type"] == SPENT
    return code


async def minted(scene: Scene, **fields: Any) -> tuple[str, str]:
    """The id and the secret of a new key that all gateways know."""
    async with httpx.AsyncClient(timeout=10) as http:
        url = f"{scene.router.origin}/admin/keys"
        answer = await http.post(url, json=fields)
        answer.raise_for_status()
        key = answer.json()
        auth = {"authorization": f"Bearer {key['secret']}"}

        async def known() -> bool:
            asked = [
                await http.get(f"{gateway.url}/models", headers=auth)
                for gateway in scene.gateways
            ]
            return all(answer.status_code == 200 for answer in asked)

        await eventually(known)
    return key["id"], key["secret"]


async def spent_of(scene: Scene, plan: Plan) -> Result:
    """Let agents spend a budget, and count."""
    _, secret = await minted(scene, name="warm-up")
    warm = Agents(scene, secret)
    warm_s = max(plan.seconds / 10, 1.0)
    await warm.spend(plan.agents, warm_s)
    budget = int(warm.seen.tokens / warm_s * plan.seconds * plan.share)
    fields = {"budget_tokens": budget, "budget_reserve": plan.reserve}
    key_id, secret = await minted(scene, name="agents", budget_window="total", **fields)
    agents = Agents(scene, secret)
    spending = asyncio.create_task(agents.spend(plan.agents, GUARD_S + plan.seconds))
    await _used(agents, budget // 3)
    scene.valkey.kill()
    await asyncio.sleep(plan.away_s)
    await asyncio.to_thread(scene.valkey.start)
    known_again = await _known(scene, key_id, agents, spending)
    await spending
    redis = await _settled(scene, key_id, agents.seen.tokens)
    sql: Sequence[Any] = fetch(
        scene.database,
        "SELECT coalesce(sum(total_tokens), 0)::bigint FROM requests "
        f"WHERE proxy_key_id = '{key_id}'",
    )
    stored = sql[0][0]
    return Result(plan, budget, agents.seen, stored, redis, agents.stopped, known_again)


async def _used(agents: Agents, tokens: int) -> None:
    async def so_many() -> bool:
        return agents.seen.tokens >= tokens

    await eventually(so_many, within_s=GUARD_S, every_s=0.005)


async def _known(
    scene: Scene, key_id: str, agents: Agents, spending: asyncio.Task[None]
) -> int:
    """Wait until a started Redis has the sum of the budget, or nobody asks for it any
    more; the tokens that the agents have used by then."""
    async with connect(scene.valkey.url) as client:
        routing = RoutingFunctions(ClientCaller(client), "telemetry:events")

        async def known() -> bool:
            if spending.done():
                return True
            try:
                (spend,) = await routing.spend(f"key:{key_id}")
            except (NoCatalogue, RedisError):  # no functions yet
                return False
            return spend is not None and spend.sure == KNOWN

        await eventually(known, within_s=GUARD_S)
        return agents.seen.tokens


async def _settled(scene: Scene, key_id: str, tokens: int) -> Spend:
    """The spend in Redis when all is stored and counted, or what it is at last."""
    async with connect(scene.valkey.url) as client:
        routing = RoutingFunctions(ClientCaller(client), "telemetry:events")
        ends = time.monotonic() + GUARD_S
        while True:
            ledger = await scene.ledger()
            (spend,) = await routing.spend(f"key:{key_id}")
            assert spend is not None
            settled = ledger is not None and not (
                ledger["pending"] or ledger["in_flight"] or ledger["queue_depth"]
            )
            counted = spend.sure == KNOWN and not spend.reserved
            if settled and counted and spend.tokens == tokens:
                return spend
            if time.monotonic() > ends:
                return spend
            await asyncio.sleep(0.2)


def table(results: Sequence[Result]) -> str:
    """The results as a Markdown table."""
    heads = [
        "",
        *("with reservation" if r.plan.reserve else "without" for r in results),
    ]
    rows: list[list[str]] = [
        ["agents", *(f"{r.plan.agents}" for r in results)],
        ["budget, tokens", *(f"{r.budget:,}" for r in results)],
        ["answers over HTTP, SSE, WebSocket"],
        [
            "tokens when Redis was emptied and had the sums again",
            *(f"{r.known_again:,}" for r in results),
        ],
        ["tokens by the agents' usages", *(f"{r.seen.tokens:,}" for r in results)],
        ["tokens in SQL", *(f"{r.sql:,}" for r in results)],
        ["tokens in Redis", *(f"{r.redis.tokens:,}" for r in results)],
        ["over the budget", *(f"{max(r.overshoot, 0):,}" for r in results)],
        ["largest usage of a request", *(f"{r.seen.largest:,}" for r in results)],
        ["agents told `insufficient_quota`", *(f"{r.spent_agents}" for r in results)],
    ]
    for r in results:
        ways = (r.seen.answers[name] for name in ("HTTP", "SSE", "WebSocket"))
        rows[2].append(", ".join(f"{count:,}" for count in ways))
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
