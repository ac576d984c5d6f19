"""A steady, bounded load of JSON requests, streams and WebSocket turns through gateways
that come and go, as behind a load balancer."""

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.processes.waiting import eventually

MODEL = "gpt-5.5"
CLIENTS_OF_A_KIND = 2
TURNS_OF_A_SOCKET = 4
# As docs/operate.md says for a load balancer: it closes idle connections first.
LIMITS = httpx.Limits(keepalive_expiry=0.25)
RESTARTS = 1012


class Gateway(Protocol):
    @property
    def url(self) -> str: ...


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    request_id: str | None  # None: a turn of a WebSocket, which names none
    response_id: str
    gateway: str
    kind: str


@dataclass
class Load:
    """What clients were answered. `gateways`: those that are in service."""

    gateways: list[Gateway]
    answers: list[Answer] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    moved: Counter[str] = field(default_factory=Counter)  # refused before it was sent
    draw: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311

    def counts(self) -> Counter[tuple[str, str]]:
        """Answers of each gateway and kind."""
        return Counter((answer.gateway, answer.kind) for answer in self.answers)

    async def serves(self, *gateways: Gateway, each: int = 3) -> None:
        """Wait until these have answered `each` more requests of each kind."""
        before = self.counts()
        kinds = [(g.url, kind) for g in gateways for kind in KINDS]

        async def enough() -> bool:
            assert self.failed == [], self.failed
            now = self.counts()
            return all(now[kind] - before[kind] >= each for kind in kinds)

        await eventually(enough, within_s=60)

    def any_gateway(self) -> Gateway:
        return self.draw.choice(self.gateways)


class Client:
    """One conversation, one turn after the other, each on any gateway."""

    def __init__(self, load: Load, http: httpx.AsyncClient, name: str) -> None:
        self._load = load
        self._http = http
        self._name = name
        self._previous: str | None = None
        self._turns = itertools.count()

    def _ask(self, **more: Any) -> dict[str, Any]:
        said = f"turn {next(self._turns)} of {self._name}"
        ask = {"model": MODEL, "input": said, **more}
        if self._previous is not None:
            ask["previous_response_id"] = self._previous
        return ask

    def _answered(
        self, kind: str, gateway: Gateway, request_id: str | None, response: Any
    ) -> None:
        self._previous = response["id"]
        said = Answer(request_id, response["id"], gateway.url, kind)
        if response["status"] != "completed":
            self._load.failed.append(f"{kind}: {response}")
        self._load.answers.append(said)

    async def json(self) -> None:
        gateway, answer = await self._post(self._ask())
        if answer is not None:
            id_ = answer.headers["x-proxy-request-id"]
            self._answered("json", gateway, id_, answer.json())

    async def stream(self) -> None:
        gateway, answer = await self._post(self._ask(stream=True))
        if answer is not None:
            data = [x[6:] for x in answer.text.splitlines() if x.startswith("data: {")]
            id_, last = answer.headers["x-proxy-request-id"], json.loads(data[-1])
            self._answered("stream", gateway, id_, last["response"])

    async def _post(self, ask: dict[str, Any]) -> tuple[Gateway, httpx.Response | None]:
        """The answer of the first gateway that accepts a connection; None is a
        failure, which is recorded."""
        headers = {"x-session-id": self._name}
        for _ in range(10):
            gateway = self._load.any_gateway()
            try:
                url = f"{gateway.url}/responses"
                answer = await self._http.post(url, json=ask, headers=headers)
            except httpx.ConnectError:
                self._load.moved["connection refused"] += 1
                continue
            except httpx.HTTPError as error:
                self._load.failed.append(f"{gateway.url}: {error!r}")
                return gateway, None
            if answer.status_code != 200:
                self._load.failed.append(f"{answer.status_code} {answer.text}")
                return gateway, None
            return gateway, answer
        raise AssertionError("no gateway accepts connections")

    async def socket(self) -> None:
        """Some turns on one WebSocket."""
        gateway = self._load.any_gateway()
        url = gateway.url.replace("http", "ws", 1) + "/responses"
        try:
            opened = await connect(url, proxy=None, compression=None)
        except ConnectionRefusedError:
            self._load.moved["connection refused"] += 1
            return
        async with opened:
            for _ in range(TURNS_OF_A_SOCKET):
                if not await self._turn(gateway, opened):
                    return

    async def _turn(self, gateway: Gateway, opened: ClientConnection) -> bool:
        """False: the gateway closed the socket before it began the turn."""
        began = False
        try:
            await opened.send(json.dumps({"type": "response.create", **self._ask()}))
            async for text in opened:
                frame = json.loads(text)
                began = True
                if frame["type"] == "error":
                    self._load.failed.append(f"socket: {frame}")
                    return False
                if frame["type"] == "response.completed":
                    self._answered("socket", gateway, None, frame["response"])
                    return True
        except ConnectionClosed:
            pass
        if began or opened.close_code != RESTARTS:
            self._load.failed.append(f"socket closed: {opened.close_code}")
        self._load.moved["socket closed"] += 1
        return False


KINDS: dict[str, Callable[[Client], Awaitable[None]]] = {
    "json": Client.json,
    "stream": Client.stream,
    "socket": Client.socket,
}


@asynccontextmanager
async def steady_load(gateways: Sequence[Gateway]) -> AsyncIterator[Load]:
    """Load until the context ends, which lets every turn finish. Few clients, each
    with one request at a time; a failure ends its client."""
    load, over = Load(list(gateways)), asyncio.Event()

    async def run(kind: str, name: str, http: httpx.AsyncClient) -> None:
        client = Client(load, http, name)
        while not over.is_set() and not load.failed:
            await KINDS[kind](client)

    async with (
        httpx.AsyncClient(timeout=60, limits=LIMITS) as http,
        asyncio.TaskGroup() as tasks,
    ):
        for kind, number in itertools.product(KINDS, range(CLIENTS_OF_A_KIND)):
            tasks.create_task(run(kind, f"{kind}-{number}", http))
        try:
            yield load
        finally:
            over.set()
