"""Tenants of the running product: their keys, and what they do."""

import json
from typing import Any

import httpx
from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection, connect

from libs.common.redis.client import ClientCaller
from libs.common.routing.functions import RoutingFunctions
from libs.common.routing.types import Owner, digest
from tests.support.databases.sql import fetch
from tests.support.processes.fleet import Fleet, Plan
from tests.support.processes.stack import STREAM
from tests.support.processes.waiting import eventually

MODEL = "gpt-5.5"
# One account, so that every upstream key can read what any other created.
UPSTREAM_KEYS = {"sk-sim-1": "acct", "sk-sim-2": "acct"}
PLAN = Plan(
    UPSTREAM_KEYS,
    gateways=2,
    services=("router", "ingest"),
    settings={"PROXY_REQUIRE_KEYS": "true", "PROXY_HEARTBEAT_SECONDS": "0.1"},
)


class Tenants:
    """The running product with proxy keys."""

    def __init__(self, fleet: Fleet, redis: Redis) -> None:
        self.fleet = fleet
        self.redis = redis
        self.routing = RoutingFunctions(ClientCaller(redis), STREAM)
        self.http = httpx.AsyncClient(timeout=20)

    async def mint(self, kind: "type[Key] | None" = None, **fields: Any) -> "Key":
        answer = await self.http.post(f"{self.fleet.admin}/keys", json=fields)
        assert answer.status_code == 201, answer.text
        return (kind or Key)(self, answer.json())

    async def give(self, key: "Key", *ids: str) -> None:
        """Record these ids as if requests of the key had minted them."""
        owner = Owner("openai-1", "acct", f"key:{key.id}")
        await self.routing.adopt(ids={digest(id_): owner for id_ in ids})

    def upstream_calls(self) -> int:
        """Requests and frames that reached the upstream."""
        journal = self.fleet.simulator.state.journal.shown(None, bodies=False)
        return len(journal["entries"])

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return fetch(self.fleet.database, query)

    async def stored(self) -> None:
        """Wait until everything that happened is in SQL."""
        await eventually(self.fleet.settled)


class Key:
    """A client with a proxy key."""

    def __init__(self, tenants: Tenants, minted: dict[str, Any]) -> None:
        self.tenants = tenants
        self.id = str(minted["id"])
        self.headers = {"authorization": f"Bearer {minted['secret']}"}

    async def call(
        self, method: str, path: str, gateway: int = 0, **more: Any
    ) -> httpx.Response:
        url = f"{self.tenants.fleet.gateways[gateway].url}{path}"
        headers = self.headers | more.pop("headers", {})
        return await self.tenants.http.request(method, url, headers=headers, **more)

    async def ask(self, gateway: int = 0, **fields: Any) -> httpx.Response:
        body = {"model": MODEL, "input": "hi", **fields}
        return await self.call("POST", "/responses", gateway, json=body)

    def socket(self, gateway: int = 0) -> connect:
        url = self.tenants.fleet.gateways[gateway].url.replace("http", "ws", 1)
        return connect(
            f"{url}/responses",
            additional_headers=self.headers,
            proxy=None,
            compression=None,
        )

    async def turn(self, socket: ClientConnection, **fields: Any) -> dict[str, Any]:
        """The last event of a response on a socket."""
        frame = {"type": "response.create", "model": MODEL, "input": "hi", **fields}
        await socket.send(json.dumps(frame))
        while True:
            event: dict[str, Any] = json.loads(await socket.recv())
            if event["type"] in ("response.completed", "response.failed", "error"):
                return event

    async def response(self, **fields: Any) -> str:
        """The id of a new response."""
        answer = await self.ask(**fields)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])
