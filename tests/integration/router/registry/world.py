"""The running product with a second upstream, whose keys are registered."""

from itertools import count
from pathlib import Path
from typing import Any

import httpx
from cryptography.fernet import Fernet
from redis.asyncio import Redis

from libs.simulator.server import RunningSimulator
from tests.support.processes.fleet import Fleet, Plan
from tests.support.processes.waiting import eventually

OURS = {"sk-sim-a": "acct-a"}
# Another upstream, whose keys are not in the environment.
THEIRS = {
    "sk-registered-c1": "acct-c",
    "sk-registered-c2": "acct-c",
    "sk-registered-d": "acct-d",
    "sk-in-the-environment": "acct-e",
}
FERNET = Fernet.generate_key().decode()
PLAN = Plan(
    OURS,
    gateways=1,
    services=("router", "health", "ingest"),
    settings={
        "PROXY_SECRET_ENCRYPTION_KEY": FERNET,
        "PROXY_HEARTBEAT_SECONDS": "0.2",
        "PROXY_HEALTH_CHECK_TIMEOUT_SECONDS": "2",
        "PROVIDER_ACME_KEY": "sk-in-the-environment",
        "PROXY_LOG_LEVEL": "debug",
    },
)
SOON_S = 60.0  # a second; only a failure takes that long
ASK = {"model": "gpt-5.5", "input": "hi"}


class World:
    """The running product, and the upstream that is registered."""

    def __init__(
        self, fleet: Fleet, upstream: RunningSimulator, redis: Redis, folder: Path
    ) -> None:
        self.fleet = fleet
        self.upstream = upstream
        self.redis = redis
        self.folder = folder
        self.http = httpx.AsyncClient(timeout=20)
        self.said: list[str] = []  # answers of the admin API, and refusals
        self.numbers = count(1)

    @property
    def url(self) -> str:
        return self.fleet.gateways[0].url

    async def admin(
        self, method: str, path: str, status: int = 200, **body: Any
    ) -> dict[str, Any]:
        answer = await self.http.request(
            method, f"{self.fleet.admin}/{path}", json=body or None
        )
        self.said.append(answer.text)
        assert answer.status_code == status, answer.text
        return dict(answer.json())

    async def provider(self, **fields: Any) -> dict[str, Any]:
        """A provider that only this test uses."""
        given = {
            "id": f"acme{next(self.numbers)}",
            "provider_type": "custom",
            "base_url": self.upstream.base_url,
            "api_key": "sk-registered-c1",
            **fields,
        }
        return await self.admin(
            "POST", "providers", 201, **{k: v for k, v in given.items() if v}
        )

    async def alias(self, provider: dict[str, Any], **fields: Any) -> str:
        given = {
            "alias": f"fast{next(self.numbers)}",
            "provider_id": provider["id"],
            "upstream_id": "gpt-5.5-mini",
            **fields,
        }
        await self.admin("POST", "models", 201, **given)
        await self.adopted()
        return str(given["alias"])

    async def adopted(self) -> None:
        """The gateway has what the router publishes."""

        async def equal() -> bool:
            ready = await self.http.get(f"{self.fleet.gateways[0].origin}/readyz")
            version: Any = await self.redis.get("{rpx}:catalogue:version")
            return bool(version and ready.json()["catalogue"] == version.decode())

        await eventually(equal, SOON_S)

    async def ask(self, model: str = "gpt-5.5", **headers: str) -> httpx.Response:
        answer = await self.http.post(
            f"{self.url}/responses",
            json={**ASK, "model": model},
            headers={name.replace("_", "-"): v for name, v in headers.items()},
        )
        if answer.status_code != 200:
            self.said.append(answer.text)
        return answer

    async def row(self, answer: httpx.Response) -> dict[str, Any]:
        """A request's row, once it is stored."""
        url = f"{self.fleet.admin}/requests/{answer.headers['x-proxy-request-id']}"

        async def stored() -> dict[str, Any] | None:
            found = await self.http.get(url)
            return found.json() if found.status_code == 200 else None

        row = await eventually(stored, SOON_S)
        assert row is not None
        return row

    async def clear(self) -> None:
        """Delete every provider."""
        for model in (await self.admin("GET", "models"))["data"]:
            await self.admin("DELETE", f"models/{model['alias']}")
        for provider in (await self.admin("GET", "providers"))["data"]:
            await self.admin("DELETE", f"providers/{provider['id']}")

    def received(self) -> list[dict[str, Any]]:
        """Requests at the registered upstream, without health checks."""
        entries = self.upstream.state.journal.shown(None, bodies=True)["entries"]
        return [e for e in entries if not e["path"].endswith("/models")]

    async def resources(self) -> dict[str, dict[str, Any]]:
        state = await self.fleet.state()
        return {resource["id"]: resource for resource in state["resources"]}


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]
