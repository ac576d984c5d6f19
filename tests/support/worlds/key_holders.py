"""The running product with proxy keys in two pools, and clients that hold them."""

from pathlib import Path
from typing import Any

import httpx
from redis.asyncio import Redis
from websockets.asyncio.client import connect

from tests.support.databases.sql import fetch
from tests.support.processes.fleet import Fleet, Plan
from tests.support.processes.waiting import eventually

ASK = {"model": "gpt-5.5", "input": "hi"}
UPSTREAM_KEYS = {"sk-sim-a": "acct-a", "sk-sim-b": "acct-b"}
PLAN = Plan(
    UPSTREAM_KEYS,
    gateways=2,
    services=("router", "ingest"),
    settings={
        "PROXY_REQUIRE_KEYS": "true",
        "OPENAI_RESOURCE_POOL_IDS": "left,right",
        "PROXY_LOG_LEVEL": "debug",
    },
)
# For gateways to learn of a change: a heartbeat; only a failure takes that long.
SOON_S = 60.0


class Holders:
    """The running product, and every secret that was ever returned."""

    def __init__(self, fleet: Fleet, redis: Redis, folder: Path) -> None:
        self.fleet = fleet
        self.redis = redis
        self.folder = folder
        self.http = httpx.AsyncClient(timeout=20)
        self.secrets: list[str] = []
        self.said: list[str] = []  # bodies of refusals

    async def mint(self, **fields: Any) -> dict[str, Any]:
        answer = await self.http.post(f"{self.fleet.admin}/keys", json=fields)
        assert answer.status_code == 201, answer.text
        self.secrets.append(answer.json()["secret"])
        return dict(answer.json())

    async def ask(
        self, key: dict[str, Any], gateway: int = 0, pool: str | None = None
    ) -> httpx.Response:
        url = f"{self.fleet.gateways[gateway].url}/responses"
        given = {"authorization": f"Bearer {key['secret']}"}
        if pool is not None:
            given["x-pool-id"] = pool
        answer = await self.http.post(url, json=ASK, headers=given)
        if answer.status_code != 200:
            self.said.append(answer.text)
        return answer

    async def change(self, key: dict[str, Any], **fields: Any) -> None:
        url = f"{self.fleet.admin}/keys/{key['id']}"
        (await self.http.patch(url, json=fields)).raise_for_status()

    async def revoke(self, key: dict[str, Any]) -> None:
        url = f"{self.fleet.admin}/keys/{key['id']}"
        (await self.http.delete(url)).raise_for_status()

    async def until_refused(self, key: dict[str, Any]) -> list[dict[str, Any]]:
        """The error of each gateway, once it refuses the key."""
        errors: list[dict[str, Any]] = []
        for gateway in range(2):

            async def refused(gateway: int = gateway) -> Any:
                answer = await self.ask(key, gateway)
                return answer.status_code == 401 and answer.json()["error"]

            errors.append(await eventually(refused, SOON_S))
        return errors

    def socket(self, key: dict[str, Any], gateway: int = 0) -> connect:
        url = self.fleet.gateways[gateway].url.replace("http", "ws", 1)
        given = {"authorization": f"Bearer {key['secret']}"}
        return connect(
            f"{url}/responses", additional_headers=given, proxy=None, compression=None
        )

    async def rows(self, key: dict[str, Any], count: int) -> list[tuple[Any, ...]]:
        """Status, error and pool of the key's requests, once they are in SQL."""
        query = (
            "SELECT status_code, error_code, pool_id FROM requests "
            f"WHERE proxy_key_id = '{key['id']}' ORDER BY created_at, id"
        )

        async def stored() -> list[tuple[Any, ...]]:
            found = fetch(self.fleet.database, query)
            return found if len(found) >= count else []

        found = await eventually(stored)
        assert len(found) == count
        return found


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]
