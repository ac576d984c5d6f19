"""How sockets end: by either side, at a limit, on a restart, and without Redis."""

import asyncio
import json
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from libs.cli.commands import service_command
from tests.support.clients.response_sockets import (
    ask,
    asked,
    end_of,
    rows,
    socket,
    upgrades_are_over,
)
from tests.support.databases.valkey import running_valkey
from tests.support.processes.ports import free_port
from tests.support.processes.processes import Process, running
from tests.support.processes.stack import Stack, gateway_stack
from tests.support.processes.waiting import eventually

pytest_plugins = ["tests.support.processes.standing"]
pytestmark = pytest.mark.asyncio(loop_scope="module")
LARGEST = 100_000
GATEWAY = {"PROXY_MAX_BODY_BYTES": str(LARGEST)}


class TestEnds:
    async def test_an_upstream_that_is_cut_is_told_with_an_error_frame(
        self, stack: Stack
    ) -> None:
        await stack.fault(ws_cut_after=3)
        async with socket(stack) as opened:
            await ask(opened)
            frames, code = await end_of(opened)
        *events, error = frames
        assert len(events) == 3
        assert code == 1011
        assert (error["type"], error["status"]) == ("error", 502)
        assert error["error"]["code"] == "upstream_unreachable"
        assert error["error"]["type"] == "server_error"
        assert error["error"]["param"] is None
        (row,) = await rows(stack, 1)
        assert (row["outcome"], row["status_code"]) == ("failed", 502)
        assert row["error_code"] == "upstream_unreachable"
        assert row["response_id"] == events[0]["response"]["id"]
        states = {state.id: state for state in await stack.routing.states()}
        assert states[row["resource_id"]].errors == 1

    async def test_each_lane_is_told(self, stack: Stack) -> None:
        async with socket(stack) as opened:
            await stack.fault(stall_after=1)
            await ask(opened, stream_id="a")
            await opened.recv()
            await stack.fault(ws_cut_after=1)
            await ask(opened, stream_id="b")
            frames, _ = await end_of(opened)
        told = [frame["stream_id"] for frame in frames if frame["type"] == "error"]
        assert told == ["a", "b"]
        assert {row["outcome"] for row in await rows(stack, 2)} == {"failed"}

    async def test_an_upstream_that_closes_in_its_answer_closes_the_client(
        self, stack: Stack
    ) -> None:
        async with socket(stack) as opened:
            await asked(opened)
            await stack.fault(end_after=3)
            await ask(opened)
            frames, code = await end_of(opened)
        assert len(frames) == 4
        assert frames[-1]["type"] == "error"
        assert code == 1000
        one, two = await rows(stack, 2)
        assert (one["outcome"], two["outcome"]) == ("completed", "failed")

    @pytest.mark.parametrize("abrupt", [True, False], ids=["dropped", "closed"])
    async def test_a_client_that_leaves_has_cancelled(
        self, stack: Stack, abrupt: bool
    ) -> None:
        await stack.fault(stall_after=2)
        async with socket(stack) as opened:
            await ask(opened)
            created = json.loads(await opened.recv())
            await opened.recv()
            assert await stack.in_flight() == 1
            if abrupt:
                opened.transport.abort()
            else:
                await opened.close()
            await eventually(lambda: upgrades_are_over(stack))
        (row,) = await rows(stack, 1)
        assert row["outcome"] == "cancelled"
        assert row["response_id"] == created["response"]["id"]
        states = {state.id: state for state in await stack.routing.states()}
        assert states[row["resource_id"]].errors == 0

    async def test_a_client_that_leaves_after_its_answer_has_completed(
        self, stack: Stack
    ) -> None:
        async with socket(stack) as opened:
            await asked(opened)
            opened.transport.abort()
        (row,) = await rows(stack, 1)
        assert row["outcome"] == "completed"

    async def test_a_frame_over_the_limit_closes_the_socket(self, stack: Stack) -> None:
        async with socket(stack) as opened:
            await ask(opened, input="x" * LARGEST)
            frames, code = await end_of(opened)
        assert (frames, code) == ([], 1009)
        await eventually(lambda: upgrades_are_over(stack))
        assert await stack.events("request") == []

    async def test_large_events_pass(self, stack: Stack) -> None:
        async with socket(stack) as opened:
            frames = await asked(opened, input="x" * (LARGEST - 100))
        assert frames[-1]["type"] == "response.completed"


class TestRestart:
    async def test_sigterm_lets_a_response_end_and_closes_with_1012(
        self, valkey: str, tmp_path: Path
    ) -> None:
        async with gateway_stack(valkey, tmp_path) as stack:
            await stack.fault(event_gap_ms=30)
            async with socket(stack) as busy, socket(stack) as idle:
                await ask(busy)
                await busy.recv()
                process = stack.gateway
                ending = asyncio.get_running_loop().run_in_executor(None, process.end)
                frames, code = await end_of(busy)
                assert await end_of(idle) == ([], 1012)
                assert (frames[-1]["type"], code) == ("response.completed", 1012)
            assert await ending == 0
            (row,) = await rows(stack, 1)
            assert row["outcome"] == "completed"

    async def test_sigterm_interrupts_what_does_not_end(
        self, valkey: str, tmp_path: Path
    ) -> None:
        settings = {"PROXY_DRAIN_SECONDS": "0.4"}
        async with gateway_stack(valkey, tmp_path, **settings) as stack:
            await stack.fault(stall_after=1)
            async with socket(stack) as opened:
                await ask(opened)
                await opened.recv()
                process = stack.gateway
                ending = asyncio.get_running_loop().run_in_executor(None, process.end)
                (error,), code = await end_of(opened)
            assert (error["status"], code) == (503, 1012)
            assert await ending == 0
            (row,) = await rows(stack, 1)
            assert row["outcome"] == "interrupted"


class TestTimes:
    async def test_an_answer_that_never_ends_is_given_up(
        self, valkey: str, tmp_path: Path
    ) -> None:
        settings = {"PROXY_REQUEST_TIMEOUT_SECONDS": "2"}
        async with gateway_stack(valkey, tmp_path, **settings) as stack:
            await stack.fault(stall_after=1)
            async with socket(stack) as opened:
                await ask(opened)
                (_, error), code = await end_of(opened)
            assert (error["status"], code) == (502, 1011)
            (row,) = await rows(stack, 1)
            assert row["outcome"] == "failed"


class TestWithoutRedis:
    async def test_a_socket_goes_on_and_the_ledger_catches_up(
        self, tmp_path: Path
    ) -> None:
        port = free_port()
        with running_valkey(tmp_path, port) as url:
            async with gateway_stack(url, tmp_path) as stack:
                async with socket(stack) as opened:
                    await stack.redis.shutdown(nosave=True)
                    await asked(opened)
                    await asked(opened)
                async with socket(stack) as opened:
                    await asked(opened)
                with running_valkey(tmp_path, port):
                    await stack.publish()
                    stored = await rows(stack, 3)
                    assert {row["outcome"] for row in stored} == {"completed"}
                    second = await stack.decisions(stored[1]["id"])
                    assert [d["reason"] for d in second] == ["socket"]
                    assert second[0]["degraded"] is True

    async def test_without_a_catalogue_an_upgrade_is_refused(
        self, valkey: str, tmp_path: Path
    ) -> None:
        port = free_port()
        env = {
            "PROXY_REDIS_URL": valkey,
            "PROXY_PORT": str(port),
            "PROXY_DATA_DIR": str(tmp_path),
        }
        command = service_command("gateway", env)
        process = Process(command, env, tmp_path / "gateway.log")
        url = f"127.0.0.1:{port}"
        with (
            running(process, f"http://{url}/healthz"),
            pytest.raises(InvalidStatus) as refused,
        ):
            await connect(f"ws://{url}/v1/responses", proxy=None)
        answered = refused.value.response
        assert answered.status_code == 503
        assert answered.headers["retry-after"] == "1"
