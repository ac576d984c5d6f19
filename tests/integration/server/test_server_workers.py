"""A gateway with two workers: both serve, a worker that dies is replaced, and they all
end together."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients.raw import calling, get, post
from tests.support.clients.scrapes import Scraped, scraped
from tests.support.databases import function_keys
from tests.support.processes.stack import Stack, gateway_stack
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio
STREAM = b'{"model":"gpt-5.5","input":"hi","stream":true}'
ASK = b'{"model":"gpt-5.5","input":"hi"}'
SILENCE_MS = 60_000
SETTINGS = {"PROXY_GATEWAY_WORKERS": "2", "PROXY_DRAIN_SECONDS": "60"}


@asynccontextmanager
async def two_workers(valkey: str, folder: Path) -> AsyncIterator[Stack]:
    async with gateway_stack(valkey, folder, **SETTINGS) as stack:
        await eventually(lambda: _both_ready(stack))
        yield stack


async def _both_ready(stack: Stack) -> bool:
    """Whether every new connection reaches a worker with a catalogue."""
    async with AsyncExitStack() as open_:
        for _ in range(8):
            caller = await open_.enter_async_context(calling(stack.origin))
            await caller.send(get(b"/readyz"))
            if (await caller.reply()).status != 200:
                return False
    return len(workers_of(stack.gateway.pid)) == 2 and await _serving(stack) == 2


async def _serving(stack: Stack) -> int:
    return int(await stack.redis.zcard(function_keys.gateways()))


def workers_of(pid: int) -> list[int]:
    """Child processes that serve, without those that are still starting."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


def worker_of(gateway_id: str) -> int:
    return int(gateway_id.split("-")[-2])


async def streaming(stack: Stack, open_: AsyncExitStack, count: int) -> None:
    """This many open streams, each on its own connection."""
    await stack.fault(times=count, stall_after=1)
    for _ in range(count):
        caller = await open_.enter_async_context(calling(stack.origin))
        await caller.send(post(STREAM))
        await caller.head()


async def leases_by_worker(stack: Stack) -> dict[int, int]:
    counts: dict[int, int] = {}
    async for key in stack.redis.scan_iter("*leases:*"):
        fields: list[Any] = await stack.redis.hkeys(key)
        for field in fields:
            pid = worker_of(field.decode().split("/")[0])
            counts[pid] = counts.get(pid, 0) + 1
    return counts


async def gone(pids: list[int]) -> bool:
    return not any(exists(pid) for pid in pids)


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_one_that_dies_is_replaced_and_its_leases_end(
    valkey: str, tmp_path: Path
) -> None:
    async with two_workers(valkey, tmp_path) as stack, AsyncExitStack() as open_:
        workers = workers_of(stack.gateway.pid)
        held: dict[int, int] = {}
        while set(held) != set(workers):  # which of them accepts is the kernel's choice
            await streaming(stack, open_, 40)
            held = await leases_by_worker(stack)

        died, stays = workers
        os.kill(died, signal.SIGKILL)
        await eventually(lambda: _replaced(stack, died, stays))
        await eventually(lambda: _reaped(stack, died))
        assert (await leases_by_worker(stack))[stays] == held[stays]
        rows = await stack.events("request")
        assert [row["outcome"] for row in rows] == ["interrupted"] * held[died]
        for _ in range(8):
            async with calling(stack.origin) as caller:
                await caller.send(post(ASK))
                assert (await caller.reply()).status == 200
        await eventually(lambda: _measured_as_one(stack, completed=8))
        await open_.aclose()
        await eventually(lambda: _idle(stack))
        await _counts_stay(stack, completed=8)


async def _measured_as_one(stack: Stack, completed: int) -> bool:
    """Whichever worker answers /metrics, it answers for all."""
    looks = [await scraped(stack.origin) for _ in range(8)]
    found = {
        (
            _completed(look),
            look.value("proxy_workers"),
            look.value("proxy_requests_in_flight"),
        )
        for look in looks
    }
    held = sum((await leases_by_worker(stack)).values())
    return found == {(completed, 2, held)}


async def _counts_stay(stack: Stack, completed: int) -> None:
    """Counts of a worker that was killed neither vanish nor double."""
    died = workers_of(stack.gateway.pid)[0]
    os.kill(died, signal.SIGKILL)
    await eventually(lambda: gone([died]))  # until then it may accept a connection
    seen = [_completed(await scraped(stack.origin))]

    async def replaced() -> bool:
        found = await scraped(stack.origin)
        seen.append(_completed(found))
        pids = workers_of(stack.gateway.pid)
        return died not in pids and found.value("proxy_workers") == 2

    await eventually(replaced)
    assert set(seen) == {completed}


def _completed(found: Scraped) -> float:
    return found.value("proxy_requests_total", outcome="completed")


async def _idle(stack: Stack) -> bool:
    return await stack.in_flight() == 0


async def _replaced(stack: Stack, died: int, stays: int) -> bool:
    now = workers_of(stack.gateway.pid)
    return len(now) == 2 and died not in now and stays in now


async def _reaped(stack: Stack, died: int) -> bool:
    """Reaps the worker that died, as if long ago; a busy one may miss heartbeats."""
    known: Any = await stack.redis.zrange(function_keys.gateways(), 0, -1)
    for gateway in known:
        if worker_of(gateway.decode()) == died:
            await stack.redis.zadd(function_keys.gateways(), {gateway: 0}, xx=True)
    await stack.routing.reap(SILENCE_MS)
    return died not in await leases_by_worker(stack)


async def test_sigterm_ends_them_all_after_what_is_under_way(
    valkey: str, tmp_path: Path
) -> None:
    async with two_workers(valkey, tmp_path) as stack, AsyncExitStack() as open_:
        workers = workers_of(stack.gateway.pid)
        await stack.fault(times=None, event_gap_ms=50)
        callers = []
        for _ in range(20):
            caller = await open_.enter_async_context(calling(stack.origin))
            await caller.send(post(STREAM))
            await caller.head()
            callers.append(caller)
        ending = asyncio.create_task(asyncio.to_thread(stack.gateway.end))
        for text in await asyncio.gather(*(caller.closed() for caller in callers)):
            assert b"event: response.completed" in text
        assert await ending == 0
        assert await gone(workers)
        assert await stack.in_flight() == 0


async def test_workers_whose_parent_was_killed_end_too(
    valkey: str, tmp_path: Path
) -> None:
    async with two_workers(valkey, tmp_path) as stack:
        workers = workers_of(stack.gateway.pid)
        os.kill(stack.gateway.pid, signal.SIGKILL)
        await eventually(lambda: gone(workers))
