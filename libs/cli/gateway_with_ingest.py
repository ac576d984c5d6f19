"""Starts and stops the gateway and ingest as one process:
`python -P -m libs.cli.gateway_with_ingest`. `responses-proxy gateway` becomes this
under PROXY_IN_PROCESS_WORKER=true.

Two processes all the same: services do not import each other, and storing a batch
would hold up every stream that shares its event loop. Ingest that ends is started
again, with growing pauses, whatever it ended of: traffic does not depend on it. The
gateway's end is the end of both, ingest last, so that it stores what the gateway said
at the end. Killed outright, it takes both along (`launch`)."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process

from libs.cli.commands import PYTHON, service_command
from libs.common.settings.services import GatewaySettings

LAUNCH = (*PYTHON, "libs.cli.process.launch")
PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
STEADY_S = 60.0  # a run this long was a good one
KILL_MARGIN_S = 2.0


class Worker:
    """Ingest, kept running until told to end."""

    def __init__(self, command: list[str], drain_s: float) -> None:
        self._command = command
        self._drain_s = drain_s
        self._process: Process | None = None

    async def keep(self) -> None:
        """For ever; to be cancelled."""
        clock, pause_s = asyncio.get_running_loop().time, PAUSE_S
        while True:
            began = clock()
            self._process = await _start(self._command)
            code = await self._process.wait()
            if clock() - began >= STEADY_S:
                pause_s = PAUSE_S
            sys.stderr.write(
                f"responses-proxy: ingest ended with {code}, starts again in "
                f"{pause_s:g} s; events wait in Redis meanwhile\n"
            )
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def end(self) -> None:
        """Let it store what it has read, within its time."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(self._drain_s + KILL_MARGIN_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def run(gateway_command: list[str], worker: Worker) -> int:
    """Both, until the gateway ends; its exit code."""
    gateway = await _start(gateway_command)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _terminate, gateway)
    keeping = asyncio.ensure_future(worker.keep())
    try:
        code = await gateway.wait()
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await worker.end()
    return code if code >= 0 else 128 - code


async def _start(command: list[str]) -> Process:
    # A session of its own: a terminal's Ctrl-C is for us to pass on.
    return await asyncio.create_subprocess_exec(
        *LAUNCH, *command, start_new_session=True
    )


def _terminate(process: Process) -> None:
    if process.returncode is None:
        process.terminate()


def main() -> int:
    drain_s = GatewaySettings.read(os.environ).drain_seconds
    worker = Worker(service_command("ingest", os.environ), drain_s)
    return asyncio.run(run(service_command("gateway", os.environ), worker))


if __name__ == "__main__":
    sys.exit(main())
