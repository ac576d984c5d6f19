"""The health service as a whole. tests/integration/health/test_health.py runs it with
Redis and upstreams."""

import asyncio
import os
import signal
from typing import Any

import httpx
import pytest

from libs.common.settings.services import HealthSettings
from services.health.app import Health, main
from tests.support.databases.resp import Command, scripted
from tests.support.processes.ports import free_port
from tests.support.processes.waiting import eventually


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PROXY_HEALTH_PORT", "http"),
        ("PROXY_HEALTH_CHECK_PATH", "../x"),
        ("HTTPS_PROXY", "ftp://h"),
    ],
)
def test_a_setting_that_makes_no_sense_is_one_line(
    variable: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"responses-proxy: {variable}")


async def ready(port: int, status: int) -> dict[str, Any]:
    """The body of `/readyz` once it answers with `status`."""
    async with httpx.AsyncClient() as client:

        async def asked() -> httpx.Response | None:
            try:
                answer = await client.get(f"http://127.0.0.1:{port}/readyz")
            except httpx.ConnectError:
                return None
            return answer if answer.status_code == status else None

        answer = await eventually(asked)
    assert answer is not None
    return dict(answer.json())


def redis(leads: bool) -> Any:
    """A Redis without a catalogue, in which this prober is or is not the leader."""

    def answer(command: Command) -> Any:
        return int(leads) if command[0] == b"EVAL" else None

    return answer


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("enabled", "leads", "role"),
    [
        ("true", True, "leads"),
        ("true", False, "stands by"),
        ("false", True, "disabled"),
    ],
)
async def test_it_says_what_it_does_until_a_signal_ends_it(
    enabled: str, leads: bool, role: str
) -> None:
    port = free_port()
    async with scripted(redis(leads)) as server:
        settings = HealthSettings.read(
            {
                "PROXY_REDIS_URL": server.url,
                "PROXY_HEALTH_PORT": str(port),
                "PROXY_HEALTH_CHECK_ENABLED": enabled,
            }
        )
        running = asyncio.create_task(Health(settings).run())

        async def told() -> bool:
            found = await ready(port, 200)
            return bool(found["details"] == {"prober": role})

        await eventually(told)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, 60)
    # Its lease is released, so that a successor need not wait.
    assert server.commands[-1][0] == b"EVAL"


@pytest.mark.asyncio
async def test_without_redis_it_is_not_ready_and_ends_all_the_same() -> None:
    port = free_port()
    async with scripted(lambda _: None) as server:
        url = server.url
    settings = HealthSettings.read(
        {"PROXY_REDIS_URL": url, "PROXY_HEALTH_PORT": str(port)}
    )
    running = asyncio.create_task(Health(settings).run())
    assert (await ready(port, 503))["degraded"] == ["redis: unreachable"]
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 60)
