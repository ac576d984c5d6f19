"""Runs the gateway and ingest as one command:
`python -P -m libs.cli.gateway_with_ingest`. `responses-proxy gateway` runs this when
PROXY_IN_PROCESS_WORKER=true.

The two are still separate processes: services do not import each other, and storing a
batch would block every stream on a shared event loop. Ingest is restarted whenever it
exits, whatever the reason, with growing delays: traffic does not depend on it. When the
gateway exits, ingest is stopped after it, so that it stores the gateway's last events.
If this process is killed, both children get SIGTERM (`launch`)."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process

from libs.cli.commands import PYTHON, service_command
from libs.cli.process.children import ended, exit_code
from libs.common.runtime.json_lines import json_line
from libs.common.settings.services import GatewaySettings

LAUNCH = (*PYTHON, "libs.cli.process.launch")
PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
STEADY_S = 60.0  # a longer run resets the delay


class Worker:
    """The ingest process, restarted until it is told to stop."""

    def __init__(self, command: list[str], drain_s: float) -> None:
        self._command = command
        self._drain_s = drain_s
        self._process: Process | None = None

    async def keep(self) -> None:
        """Runs until canceled."""
        clock, pause_s = asyncio.get_running_loop().time, PAUSE_S
        while True:
            began = clock()
            self._process = await _start(self._command)
            code = await self._process.wait()
            if clock() - began >= STEADY_S:
                pause_s = PAUSE_S
            said = (
                f"ingest exited with code {code}; restarting it in {pause_s:g} s. "
                "Events wait in Redis until then."
            )
            line = json_line("gateway", "error", said, "ingest_exited")
            sys.stderr.write(f"{line}\n")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def end(self) -> None:
        """Stop ingest; it has the drain time to store what it has read."""
        if self._process is not None:
            await ended(self._process, self._drain_s)


async def run(gateway_command: list[str], worker: Worker) -> int:
    """Run both until the gateway exits; returns its exit code."""
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
    return exit_code(code)


async def _start(command: list[str]) -> Process:
    # In a session of its own: Ctrl-C reaches this process only, which passes it on.
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
