"""The pages of a router, its token, and what it says when a part is away."""

import asyncio
from pathlib import Path
from time import time
from typing import Any

import pytest

from tests.integration.router.process.running import (
    REFUSED,
    RESOURCES,
    STREAM,
    TOKEN,
    Standing,
    error,
    fill,
    router,
    states_of,
)
from tests.support.clients.scrapes import Scraped
from tests.support.databases.valkey import running_valkey
from tests.support.processes.ports import free_port
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


class TestPages:
    @pytest.mark.parametrize(
        ("path", "content_type"),
        [
            ("/", "text/html"),
            ("/docs", "text/html"),
            ("/dashboard/app.js", "text/javascript"),
            ("/dashboard/views/overview.js", "text/javascript"),
            ("/dashboard/style.css", "text/css"),
            ("/favicon.ico", "image/svg+xml"),
            ("/openapi.json", "application/json"),
            ("/healthz", "application/json"),
            ("/metrics", "text/plain"),
        ],
    )
    async def test_content_types(
        self, proxy: Standing, path: str, content_type: str
    ) -> None:
        answer = await proxy.http.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(content_type)

    @pytest.mark.parametrize("path", ["/", "/docs"])
    async def test_pages_forbid_other_hosts(self, proxy: Standing, path: str) -> None:
        policy = (await proxy.http.get(path)).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy

    async def test_metrics_tell_of_each_resource(self, proxy: Standing) -> None:
        text = (await proxy.http.get("/metrics")).text
        assert 'proxy_resource_in_flight{resource="openai-4"} 0.0' in text

    async def test_what_is_impaired_is_logged_and_measured(
        self, proxy: Standing
    ) -> None:
        """Here no health service and no ingest run. Then the upstream refuses all
        keys."""
        an_hour_ago = int(time() * 1000) - 3_600_000
        event: dict[Any, Any] = {"kind": "health", "id": "x", "v": 1, "data": "{}"}
        await proxy.redis.delete(STREAM)
        await proxy.redis.xadd(STREAM, event, id=f"{an_hour_ago}-1")
        for id_ in RESOURCES:
            await proxy.routing.verdict(id_, REFUSED)

        async def told() -> bool:
            found = Scraped((await proxy.http.get("/metrics")).text)
            return all(
                found.value("proxy_degraded", part=part)
                for part in ("health", "ingest", "resources")
            )

        await eventually(told)  # HealthChecksStopped
        for part in ("health", "ingest", "resources"):
            assert proxy.process.logged("degraded_began", part=part)
        found = Scraped((await proxy.http.get("/metrics")).text)
        assert found.value("proxy_queue_oldest_seconds") >= 3_600  # NotStored
        assert found.value("proxy_resource_available") == 0  # NoResource
        assert found.value("proxy_ledger_balanced") == 1

    async def test_an_unknown_route(self, proxy: Standing) -> None:
        answer = await proxy.http.get("/nothing")
        assert (answer.status_code, error(answer)) == (404, "unknown_route")

    async def test_a_check_without_a_health_service(self, proxy: Standing) -> None:
        answer = await proxy.http.post("/admin/health/check", json={})
        assert (answer.status_code, error(answer)) == (503, "health_unreachable")
        assert (
            await proxy.redis.exists("{rpx}:checks") == 0
        )  # no later health service finds it


class TestToken:
    async def test_only_its_holder_gets_in(self, valkey: str, tmp_path: Path) -> None:
        async with router(valkey, tmp_path, PROXY_ADMIN_TOKEN=TOKEN) as proxy:
            for path in ("state", "events", "requests", "nothing"):
                answer = await proxy.http.get(f"/admin/{path}")
                assert (answer.status_code, error(answer)) == (
                    401,
                    "invalid_admin_token",
                )
            for path in ("/", "/docs", "/openapi.json", "/healthz", "/readyz"):
                assert (await proxy.http.get(path)).status_code == 200
            proxy.http.headers["authorization"] = f"Bearer {TOKEN}"
            assert (await proxy.state())["admin"] == "token"

    async def test_beyond_loopback_it_is_not_open_either(
        self, valkey: str, tmp_path: Path
    ) -> None:
        beyond = {"PROXY_HOST": "0.0.0.0", "PROXY_ALLOW_OPEN_ADMIN": ""}
        async with router(valkey, tmp_path, **beyond) as proxy:
            answer = await proxy.http.get("/admin/state")
            assert (answer.status_code, error(answer)) == (503, "admin_token_unknown")
            await fill(proxy.database)

            async def asked_for() -> bool:
                return (await proxy.http.get("/admin/state")).status_code == 401

            await eventually(asked_for)


class TestTrouble:
    async def test_a_redis_that_comes_late_and_goes(self, tmp_path: Path) -> None:
        port = free_port()
        url = f"redis://127.0.0.1:{port}/0"
        async with router(url, tmp_path, probe="healthz") as proxy:
            answer = await proxy.http.get("/readyz")
            assert answer.status_code == 503
            assert "redis" in answer.json()["degraded"][0]
            with running_valkey(tmp_path, port):
                await eventually(proxy.whole)
                assert (await proxy.http.get("/readyz")).status_code == 200
            state = await proxy.state()
            assert [r["health"] for r in state["resources"]] == ["unknown"] * 4
            assert "redis" in state["degraded"][0]

            async def unready() -> bool:
                return (await proxy.http.get("/readyz")).status_code == 503

            await eventually(unready)

            async def told() -> bool:
                found = Scraped((await proxy.http.get("/metrics")).text)
                impaired = found.value("proxy_degraded", part="redis")
                return (found.value("proxy_redis_up"), impaired) == (0, 1)

            await eventually(told)  # RedisDown
            assert proxy.process.logged("degraded_began", part="redis")
            with running_valkey(tmp_path, port):
                await eventually(proxy.whole)

    async def test_without_a_database_it_goes_on(
        self, valkey: str, tmp_path: Path
    ) -> None:
        lost = f"sqlite:///{tmp_path}"  # a directory, which cannot be a database
        async with router(valkey, tmp_path, PROXY_SQLITE_URL=lost) as proxy:
            answer = await proxy.http.get("/readyz")
            assert answer.status_code == 200
            assert "database" in answer.json()["degraded"][0]
            answer = await proxy.http.get("/admin/requests")
            assert (answer.status_code, error(answer)) == (503, "database_unreachable")
            assert "database" in (await proxy.state())["degraded"][0]

            async def told() -> bool:
                found = Scraped((await proxy.http.get("/metrics")).text)
                impaired = found.value("proxy_degraded", part="database")
                return (found.value("proxy_sql_up"), impaired) == (0, 1)

            await eventually(told)  # DatabaseDown
            assert proxy.process.logged("degraded_began", part="database")

    async def test_it_ends_at_once_with_streams_open(self, tmp_path: Path) -> None:
        with running_valkey(tmp_path) as valkey:
            async with router(valkey, tmp_path) as proxy:
                async with proxy.http.stream("GET", "/admin/events") as answer:
                    states = states_of(answer)
                    await anext(states)
                    assert await asyncio.to_thread(proxy.process.end) == 0
                    # One each second. Granian would wait ten seconds for the stream.
                    assert len([state async for state in states]) < 5
                # A successor need not wait for the lease to expire.
                assert not await proxy.redis.exists("{rpx}:leader:router")
