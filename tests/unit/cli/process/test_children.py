"""Child processes and how they end."""

import asyncio
import signal
import sys

import pytest

from libs.cli.process import children
from libs.cli.process.children import ended, exit_code

pytestmark = pytest.mark.asyncio
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True)"


async def started(code: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", f"{code}\ninput()",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    await process.stdout.readline()
    return process


async def test_a_process_ends_by_sigterm() -> None:
    process = await started("print(flush=True)")
    assert await ended(process, 30) == -signal.SIGTERM
    assert await ended(process, 30) == -signal.SIGTERM  # again


async def test_one_that_takes_too_long_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(children, "KILL_MARGIN_S", 0.01)
    assert await ended(await started(DEAF), 0) == -signal.SIGKILL


@pytest.mark.parametrize(("code", "shown"), [(0, 0), (3, 3), (-15, 143)])
async def test_a_signal_is_shown_as_shells_do(code: int, shown: int) -> None:
    assert exit_code(code) == shown
