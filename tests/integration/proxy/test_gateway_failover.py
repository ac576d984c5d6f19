"""Failover through a gateway process, and requests while Redis refuses or is away."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.clients.scrapes import scraped
from tests.support.databases.valkey import running_valkey
from tests.support.processes.ports import free_port
from tests.support.processes.stack import Stack, gateway_stack
from tests.support.processes.waiting import eventually

pytest_plugins = ["tests.support.processes.standing"]
pytestmark = pytest.mark.asyncio(loop_scope="module")
ASK = {"model": "gpt-5.5", "input": "Say hello"}


class TestFailover:
    @pytest.mark.parametrize(
        "fault",
        [
            {"status": 429, "headers": {"retry-after": "7"}},
            {"status": 500},
            {"status": 502},
            {"status": 503},
            {"status": 504},
            {"status": 529},
            {"status": 401},
            {"status": 403},
            {"garbage": True},
        ],
        ids=str,
    )
    async def test_goes_elsewhere_before_the_first_byte(
        self, stack: Stack, http: httpx.AsyncClient, fault: dict[str, Any]
    ) -> None:
        await stack.fault(**fault)
        answer = await http.post(f"{stack.url}/responses", json=ASK)
        assert answer.status_code == 200
        assert answer.headers["x-proxy-attempts"] == "2"
        request_id = answer.headers["x-proxy-request-id"]
        event = await stack.request(request_id)
        assert (event["outcome"], event["attempts"]) == ("completed", 2)
        first, second = await stack.decisions(request_id)
        assert first["resource_id"] != second["resource_id"]
        assert await stack.in_flight() == 0

    @pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
    async def test_client_errors_pass_at_once(
        self, stack: Stack, http: httpx.AsyncClient, status: int
    ) -> None:
        await stack.fault(status=status)
        answer = await http.post(f"{stack.url}/responses", json=ASK)
        assert answer.status_code == status
        assert answer.headers["x-proxy-attempts"] == "1"
        event = await stack.request(answer.headers["x-proxy-request-id"])
        assert (event["outcome"], event["status_code"]) == ("failed", status)
        assert {s.errors for s in await stack.routing.states()} == {0}

    async def test_the_last_failure_passes_as_the_upstream_said_it(
        self, stack: Stack, http: httpx.AsyncClient
    ) -> None:
        await stack.fault(times=None, status=503, code="server_is_overloaded")
        answer = await http.post(f"{stack.url}/responses", json=ASK)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "server_is_overloaded"
        assert answer.headers["x-proxy-attempts"] == "3"
        event = await stack.request(answer.headers["x-proxy-request-id"])
        assert event["error_code"] == "server_is_overloaded"
        assert await stack.in_flight() == 0

    @pytest.mark.parametrize(
        ("headers", "expected"),
        [({"retry-after": "7"}, "7"), ({"retry-after": "1.5"}, "2"), ({}, "30")],
        ids=str,
    )
    async def test_every_429_leaves_with_whole_seconds(
        self,
        stack: Stack,
        http: httpx.AsyncClient,
        headers: dict[str, str],
        expected: str,
    ) -> None:
        await stack.fault(times=None, status=429, headers=headers)
        answer = await http.post(f"{stack.url}/responses", json=ASK)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= int(expected)

    async def test_nobody_there_is_502(
        self, stack: Stack, http: httpx.AsyncClient
    ) -> None:
        stack.environ["PROXY_UPSTREAM_BASE_URL"] = f"http://127.0.0.1:{free_port()}/v1"
        await stack.publish("v2")
        answer = await http.post(f"{stack.url}/responses", json=ASK)
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "upstream_unreachable"

    async def test_a_base_url_without_v1_and_a_wrong_length(
        self, stack: Stack, http: httpx.AsyncClient
    ) -> None:
        await stack.fault(times=None, wrong_length=True)
        with pytest.raises(httpx.RemoteProtocolError):
            await http.post(f"{stack.url}/responses", json=ASK)


class TestRedisThatRefuses:
    async def test_the_gateway_goes_on(
        self, tmp_path: Path, http: httpx.AsyncClient
    ) -> None:
        """Redis is full, or a replica after a failover: it answers with errors only."""
        with running_valkey(tmp_path) as url:
            async with gateway_stack(url, tmp_path) as stack:
                await stack.redis.config_set("maxmemory", "1")
                answers = [
                    await http.post(f"{stack.url}/responses", json=ASK)
                    for _ in range(5)
                ]
                assert {answer.status_code for answer in answers} == {200}
                await stack.redis.config_set("maxmemory", "0")

                async def caught_up() -> bool:
                    return len(await stack.events("request")) == 5

                await eventually(caught_up)
                assert stack.gateway.alive


class TestWithoutRedis:
    async def test_traffic_goes_on_and_the_ledger_catches_up(
        self, tmp_path: Path, http: httpx.AsyncClient
    ) -> None:
        port = free_port()
        with running_valkey(tmp_path, port) as url:
            async with gateway_stack(url, tmp_path) as stack:
                await self._without(stack, tmp_path, port, http)

    async def _without(
        self, stack: Stack, folder: Path, port: int, http: httpx.AsyncClient
    ) -> None:
        await stack.redis.shutdown(nosave=True)
        answers = [
            await http.post(f"{stack.url}/responses", json=ASK) for _ in range(8)
        ]
        assert {answer.status_code for answer in answers} == {200}
        assert len({a.headers["x-proxy-resource-id"] for a in answers}) > 1
        ready = await http.get(f"{stack.origin}/readyz")
        assert ready.status_code == 200
        assert "redis" in ready.json()["degraded"][0]

        async def told() -> bool:
            found = await scraped(stack.origin)
            impaired = found.value("proxy_degraded", part="redis")
            return (found.value("proxy_redis_up"), impaired) == (0, 1)

        await eventually(told)  # RedisDown
        assert (await scraped(stack.origin)).value("proxy_outbox_events") > 0
        assert stack.gateway.logged("degraded_began", part="redis")
        with running_valkey(folder, port):
            await stack.publish()

            async def caught_up() -> bool:
                return len(await stack.events("request")) >= 8

            await eventually(caught_up)
            ids = {e["id"] for e in await stack.events("request")}
            assert ids == {a.headers["x-proxy-request-id"] for a in answers}
            decisions = await stack.events("decision")
            assert {d["degraded"] for d in decisions} == {True}
            again = await http.post(f"{stack.url}/responses", json=ASK)
            (decision,) = await stack.decisions(again.headers["x-proxy-request-id"])
            assert "degraded" not in decision

            async def over() -> bool:
                return bool(stack.gateway.logged("degraded_ended", part="redis"))

            await eventually(over)
