"""A running router with its Redis and database."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from redis.asyncio import Redis

from libs.common.redis.client import ClientCaller
from libs.common.redis.shared_connection import connect
from libs.common.routing.functions import RoutingFunctions
from libs.common.routing.types import Ask, digest
from libs.common.store.factory import open_store
from libs.common.upstream_answers.verdicts import Verdict
from tests.support.processes.ports import free_port
from tests.support.processes.processes import Process, granian, running
from tests.support.values.telemetry import (
    T0_MS,
    decision_event,
    request_event,
    streamed,
)

STREAM = "telemetry:events"
TOKEN = "correct-horse-battery"
RESOURCES = [f"openai-{number}" for number in range(1, 5)]


@dataclass
class Standing:
    """A running router with its Redis and database."""

    http: httpx.AsyncClient
    redis: Redis
    routing: RoutingFunctions
    process: Process
    database: str

    async def state(self) -> dict[str, Any]:
        return await self._get("/admin/state")

    async def ledger(self) -> dict[str, Any]:
        return await self._get("/admin/ledger")

    async def _get(self, path: str) -> dict[str, Any]:
        answer = await self.http.get(path)
        assert answer.status_code == 200
        return dict(answer.json())

    async def whole(self) -> bool:
        """Whether all resources are in Redis."""
        state = await self.state()
        ids = [resource["id"] for resource in state["resources"]]
        return ids == RESOURCES and not any("redis" in d for d in state["degraded"])

    async def told(self, kind: str) -> list[dict[str, Any]]:
        """The stream's events of a kind, oldest first."""
        entries: Any = await self.redis.xrange(STREAM)
        wanted = kind.encode()
        return [json.loads(f[b"data"]) for _, f in entries if f[b"kind"] == wanted]

    async def empty_redis(self) -> None:
        await self.redis.flushall()
        await self.redis.execute_command("FUNCTION", "FLUSH")  # type: ignore[no-untyped-call]


MINTED = "resp_of_request_2"
REFUSED = Verdict(kind="refused", cause="401 invalid_api_key")


def environ(valkey: str, port: int, database: str, **more: str) -> dict[str, str]:
    return {
        "PROXY_REDIS_URL": valkey,
        "PROXY_ROUTER_PORT": str(port),
        "PROXY_SQLITE_URL": database,
        "PROXY_UPSTREAM_BASE_URL": "http://127.0.0.1:9/v1",
        "PROXY_GATEWAY_SILENCE_SECONDS": "60",
        "PROXY_HEALTH_CHECK_TIMEOUT_SECONDS": "1",
        "OPENAI_API_KEYS": "sk-1,sk-2,sk-3,sk-4",
        **more,
    }


@asynccontextmanager
async def router(
    valkey: str, folder: Path, probe: str = "readyz", **more: str
) -> AsyncIterator[Standing]:
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    database = f"sqlite:///{folder}/proxy.sqlite3"
    process = Process(
        granian("services.router.app:create_app", port),
        # A checkout that was used has a token in its own data directory.
        environ(valkey, port, database, **{"PROXY_DATA_DIR": str(folder), **more}),
        folder / "router.log",
    )
    redis = connect(valkey)
    routing = RoutingFunctions(ClientCaller(redis), STREAM)
    try:
        with running(process, f"{origin}/{probe}"):
            async with httpx.AsyncClient(base_url=origin, timeout=10) as http:
                yield Standing(http, redis, routing, process, database)
    finally:
        await redis.aclose()


async def fill(database: str) -> None:
    """Three requests of two sessions, one with two attempts."""
    store = open_store(database)
    await store.migrate()
    events = []
    for number in range(3):
        at = T0_MS + number * 1000
        request = request_event(
            f"req-{number}",
            created_at_ms=at,
            completed_at_ms=at + 500,
            session_id=f"session-{number % 2}",
            resource_id=f"openai-{number + 1}",
            total_tokens=10,
            minted=(MINTED,) if number == 2 else (),
        )
        events.append(streamed(request))
        for attempt in range(1, 3 if number == 2 else 2):
            decision = decision_event(
                request.id, attempt=attempt, created_at_ms=at + attempt
            )
            events.append(streamed(decision, f"decision-{number}-{attempt}"))
    await store.write(events)
    await store.close()


def error(answer: httpx.Response) -> str:
    body = answer.json()["error"]
    assert set(body) == {"message", "type", "param", "code"}
    return str(body["code"])


async def acquired(
    routing: RoutingFunctions, request_id: str, session: str, gateway: str = "gw-1"
) -> str:
    """Where the gateway has its lease."""
    ask = Ask(
        request_id=request_id,
        decision_id=f"decision-{request_id}",
        attempt=1,
        gateway_id=gateway,
        pool_id=None,
        session_id=session,
        session=digest(session),
        model="",
        bound=(),
        account_bound=False,
        tried=(),
        previous="",
        lease=json.dumps(
            {
                "id": request_id,
                "created_at_ms": T0_MS,
                "method": "POST",
                "path": "/v1/responses",
                "gateway_id": gateway,
            }
        )
        .encode()
        .removesuffix(b"}"),
        draw=0,
    )
    return (await routing.acquire(ask)).resource_id


async def states_of(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in answer.aiter_lines():
        if line.startswith("data:"):
            yield json.loads(line.removeprefix("data:"))
