"""Runs the gateway and restarts it when its code changes:
`python -P -m libs.cli.reload`. For development: `responses-proxy gateway --reload`
runs this.

This process holds the listening socket, so the port is never closed: connections that
arrive during a restart wait for the new gateway. The old one gets SIGTERM and finishes
its streams within the drain time, while the new one serves."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Coroutine, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import libs
from libs.cli.commands import service_command
from libs.cli.process.children import ended, exit_code
from libs.common.errors import SettingError
from libs.common.runtime.listening import AddressTaken, bind, environment
from libs.common.settings.services import GatewaySettings

SUFFIXES = (".py", ".lua", ".sql")
ROOT = Path(libs.__path__[0]).parent
FOLDERS = (ROOT / "libs", ROOT / "services")


def is_code(_: object, path: str) -> bool:
    """Whether a changed file is code, as a filter of watchfiles."""
    return path.endswith(SUFFIXES)


def named(paths: Iterable[str]) -> str:
    """The first of the changed files, for a message."""
    changed = sorted(Path(path).name for path in paths)
    others = len(changed) - 1
    return changed[0] + (f" and {others} more" if others else "")


class Gateways:
    """The gateway that serves, and those that still drain."""

    def __init__(self, listening: socket.socket, drain_s: float) -> None:
        self._listening = listening
        self._drain_s = drain_s
        self._tasks: set[asyncio.Task[int]] = set()
        self._serving: Process | None = None

    async def start(self) -> None:
        """Start one, and let the one before drain."""
        self._end_serving()
        self._serving = process = await asyncio.create_subprocess_exec(
            *service_command("gateway", os.environ),
            env=environment(os.environ, self._listening),
            pass_fds=[self._listening.fileno()],
            # Ctrl-C reaches this process only, which passes it on.
            start_new_session=True,
        )
        self._follow(self._watch(process))

    async def end(self) -> int:
        """End all; returns the exit code of the last one."""
        last = self._serving
        self._listening.close()  # new clients are refused at once
        self._end_serving()
        await asyncio.gather(*self._tasks)
        return exit_code(0 if last is None else last.returncode or 0)

    def _end_serving(self) -> None:
        process, self._serving = self._serving, None
        if process is not None and process.returncode is None:
            self._follow(ended(process, self._drain_s))

    def _follow(self, work: Coroutine[Any, Any, int]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, process: Process) -> int:
        code = await process.wait()
        if process is self._serving:
            say(f"the gateway exited with code {code}. The next change starts it again")
        return code


def say(line: str) -> None:
    sys.stderr.write(f"responses-proxy: {line}.\n")


async def run(listening: socket.socket, drain_s: float) -> int:
    """Until SIGTERM or SIGINT; returns the exit code."""
    from watchfiles import awatch  # noqa: PLC0415 - only developers have it

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    gateways = Gateways(listening, drain_s)
    await gateways.start()
    say(f"restarts the gateway when code changes below {ROOT}")
    async for changes in awatch(*FOLDERS, watch_filter=is_code, stop_event=stop):
        say(f"{named(path for _, path in changes)} changed, restarting the gateway")
        await gateways.start()
    return await gateways.end()


def main() -> int:
    settings = GatewaySettings.read(os.environ)
    try:
        _check(settings)
        listening = bind(settings.host, settings.port)
    except (SettingError, AddressTaken) as error:
        sys.stderr.write(f"responses-proxy: {error}\n")
        return 2
    return asyncio.run(run(listening, settings.drain_seconds))


def _check(settings: GatewaySettings) -> None:
    if find_spec("watchfiles") is None:
        raise SettingError(
            "--reload",
            "needs the package watchfiles, which is not installed",
            "Use `uv run responses-proxy gateway --reload`, or `make setup-test`",
        )
    if settings.in_process_worker:
        raise SettingError(
            "PROXY_IN_PROCESS_WORKER",
            "is true, which --reload does not support",
            "Unset it, and run `responses-proxy-worker` beside the gateway",
        )


if __name__ == "__main__":
    sys.exit(main())
