"""Two gateways and two providers, with aliases that have targets at both."""

from itertools import count
from typing import Any

import httpx
from cryptography.fernet import Fernet
from redis.asyncio import Redis

from libs.simulator.faults.faults import parse_script
from libs.simulator.server import RunningSimulator
from tests.support.databases.sql import fetch
from tests.support.processes.fleet import Fleet, Plan
from tests.support.processes.ports import free_port
from tests.support.processes.waiting import eventually

OURS = {"sk-sim-a": "acct-a"}
ONE = {"sk-one-1": "acct-one-1", "sk-one-2": "acct-one-2"}
TWO = {"sk-two": "acct-two"}
PLAN = Plan(
    OURS,
    gateways=2,
    services=("router", "ingest"),
    settings={
        "PROXY_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
        "PROXY_HEARTBEAT_SECONDS": "0.2",
    },
)
SOON_S = 60.0  # only a failure takes that long
MODELS = {"one": "gpt-5.4", "two": "gpt-5.4-mini", "dead": "gpt-dead"}


class World:
    """The running product and its providers."""

    def __init__(
        self, fleet: Fleet, one: RunningSimulator, two: RunningSimulator, redis: Redis
    ) -> None:
        self.fleet = fleet
        self.one = one
        self.two = two
        self.redis = redis
        self.http = httpx.AsyncClient(timeout=20)
        self.numbers = count(1)

    async def admin(
        self, method: str, path: str, status: int = 200, **body: Any
    ) -> dict[str, Any]:
        url = f"{self.fleet.admin}/{path}"
        answer = await self.http.request(method, url, json=body or None)
        assert answer.status_code == status, answer.text
        return dict(answer.json())

    async def register(self) -> None:
        nobody = f"http://127.0.0.1:{free_port()}/v1"
        for id_, url, keys, pool in (
            ("one", self.one.base_url, ",".join(ONE), "cheap"),
            ("two", self.two.base_url, ",".join(TWO), "dear"),
            ("dead", nobody, "sk-dead", "cheap"),
        ):
            given = {"id": id_, "provider_type": "custom", "base_url": url}
            given |= {"api_key": keys, "pool_id": pool}
            await self.admin("POST", "providers", 201, **given)

    async def alias(self, *targets: tuple[str, int, float]) -> str:
        """An alias of its own for (provider, priority, weight). Models have names of
        their own, too: cooldowns are per model."""
        number = next(self.numbers)
        given = [
            {
                "provider_id": provider,
                "upstream_id": f"{MODELS[provider]}-v{number}",
                "priority": priority,
                "weight": weight,
            }
            for provider, priority, weight in targets
        ]
        name = f"fast{number}"
        await self.admin("POST", "models", 201, alias=name, targets=given)
        await self.adopted()
        return name

    async def adopted(self) -> None:
        """The gateways have what the router publishes."""

        async def equal() -> bool:
            version: Any = await self.redis.get("{rpx}:catalogue:version")
            known = [
                (await self.http.get(f"{gateway.origin}/readyz")).json()["catalogue"]
                for gateway in self.fleet.gateways
            ]
            return bool(version) and set(known) == {version.decode()}

        await eventually(equal, SOON_S)

    async def ask(
        self, model: str, gateway: int = 0, *, key: str = "any", **more: Any
    ) -> httpx.Response:
        return await self.http.post(
            f"{self.fleet.gateways[gateway].url}/responses",
            json={"model": model, "input": "hi", **more},
            headers={"authorization": f"Bearer {key}"},
        )

    async def decisions(self, answer: httpx.Response) -> list[tuple[Any, ...]]:
        """Attempt, pool, resource, reason and cause, once they are stored."""
        id_ = answer.headers["x-proxy-request-id"]

        async def stored() -> bool:
            rows = fetch(
                self.fleet.database, f"SELECT id FROM requests WHERE id = '{id_}'"
            )
            return bool(rows)

        await eventually(stored, SOON_S)
        return fetch(
            self.fleet.database,
            "SELECT attempt, pool_id, resource_id, reason, cause FROM decisions"
            f" WHERE request_id = '{id_}' ORDER BY id",
        )

    def fails(self, simulator: RunningSimulator, times: int, **fault: Any) -> None:
        """The next requests of clients fail there."""
        script = {"times": times, "fault": fault}
        simulator.state.faults.add(parse_script(script))


def provider(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.headers["x-proxy-resource-id"].partition("-")[0]


def model(answer: httpx.Response) -> str:
    """That the upstream was asked for, without its number."""
    return str(answer.json()["model"]).rpartition("-v")[0]
