"""`responses-proxy gateway --reload`: new code serves, no connection is refused
meanwhile, and the old gateway finishes its streams."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.support.databases.valkey import empty
from tests.support.processes.processes import ROOT
from tests.support.processes.stack import Stack, stack_started_by
from tests.support.processes.up import parent_of
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio

RELOAD = [sys.executable, "-P", "-m", "libs.cli.reload"]
BODY = {"model": "gpt-5.5", "input": "Say hello"}
EVENT_GAP_MS = 150  # so that a stream outlives the restart


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A copy of the code, which the test may change."""
    for package in ("libs", "services"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    return tmp_path


@pytest_asyncio.fixture
async def stack(valkey: str, code: Path, tmp_path: Path) -> AsyncIterator[Stack]:
    empty(valkey)
    folder = tmp_path / "data"
    folder.mkdir()
    environ = {"PYTHONPATH": str(code)}
    async with stack_started_by(RELOAD, valkey, folder, environ) as running:
        yield running


def children(pid: int) -> list[int]:
    numbers = [int(e.name) for e in Path("/proc").iterdir() if e.name.isdigit()]
    return [number for number in numbers if parent_of(number) == pid]


async def one_gateway(stack: Stack, *, not_in: set[int | None]) -> int | None:
    """The only child of the reloading process, once it is a new one."""
    found = children(stack.gateway.pid)
    return found[0] if len(found) == 1 and found[0] not in not_in else None


async def ask(stack: Stack) -> int:
    """The status of a request over a new connection."""
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.post(f"{stack.url}/responses", json=BODY)
        return answer.status_code


async def stream(stack: Stack, begun: asyncio.Event) -> str:
    text = ""
    async with (
        httpx.AsyncClient(timeout=60) as client,
        client.stream(
            "POST", f"{stack.url}/responses", json={**BODY, "stream": True}
        ) as answer,
    ):
        async for line in answer.aiter_lines():
            begun.set()
            text += f"{line}\n"
    return text


def said(stack: Stack, text: str) -> bool:
    return text in stack.gateway.log.read_text()


async def test_a_change_restarts_it_and_nothing_is_refused(
    stack: Stack, code: Path
) -> None:
    before = await eventually(lambda: one_gateway(stack, not_in=set()))
    await stack.fault(event_gap_ms=EVENT_GAP_MS)
    begun = asyncio.Event()
    streaming = asyncio.create_task(stream(stack, begun))
    await asyncio.wait_for(begun.wait(), 60)

    changed = code / "services" / "gateway" / "metrics.py"
    changed.write_text(changed.read_text() + "\n# changed\n")

    statuses = []

    async def replaced() -> int | None:
        statuses.append(await ask(stack))
        return await one_gateway(stack, not_in={before})

    await eventually(replaced)
    assert "event: response.completed" in await streaming
    assert said(stack, "metrics.py changed, restarting the gateway")
    assert await ask(stack) == 200
    assert set(statuses) == {200}, statuses


async def test_code_that_does_not_start_is_tried_again_when_it_changes(
    stack: Stack, code: Path
) -> None:
    before = await eventually(lambda: one_gateway(stack, not_in=set()))
    changed = code / "services" / "gateway" / "app.py"
    good = changed.read_text()

    changed.write_text("this is no Python\n")

    async def failed() -> bool:
        return said(stack, "the gateway exited with code 1. The next change")

    await eventually(failed)
    waiting = asyncio.create_task(ask(stack))  # accepted, and waits
    changed.write_text(good)
    assert await waiting == 200
    assert await eventually(lambda: one_gateway(stack, not_in={before}))


async def test_sigterm_ends_it_and_closes_the_port(stack: Stack) -> None:
    gateway = await eventually(lambda: one_gateway(stack, not_in=set()))

    assert stack.gateway.end() == 0

    assert parent_of(gateway or 0) is None
    with pytest.raises(httpx.ConnectError):
        await ask(stack)
