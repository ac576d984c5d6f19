"""Runs supervisord as a foreground command:
`python -m libs.cli.process.supervisord RUN_DIR`.

Exits with 1 if the readiness listener reported a failure. SIGHUP, sent when a terminal
closes, stops it instead of restarting it. Programs get SIGTERM when it dies."""

import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from supervisor.medusa import asyncore_25 as asyncore
from supervisor.states import SupervisorStates
from supervisor.supervisord import Supervisor

from libs.cli.process import descriptors
from libs.cli.process.json_output import JsonOptions, translate_output
from libs.cli.process.lifeline import die_with_parent


class Options(JsonOptions):
    def execve(
        self, filename: str, argv: list[str], env: Mapping[str, str]
    ) -> NoReturn:
        """Become a program, in the process that was forked for it."""
        surplus = [descriptors.LOCK, descriptors.OUTPUT]
        if env["SUPERVISOR_PROCESS_NAME"] == descriptors.LISTENER:
            surplus.remove(descriptors.OUTPUT)
        for descriptor in surplus:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        die_with_parent()
        os.execve(filename, argv, env)  # noqa: S606 - that is what it is for


class Foreground(Supervisor):  # type: ignore[misc]  # untyped library
    def runforever(self) -> None:
        # Start programs at once: the loop would first wait for a second.
        for group in sorted(self.process_groups.values()):
            group.transition()
        super().runforever()

    def handle_signal(self) -> None:
        before = self.options.mood
        super().handle_signal()
        if self.options.mood == SupervisorStates.RESTARTING != before:
            self.options.mood = SupervisorStates.SHUTDOWN


def main() -> int:
    run_dir = Path(sys.argv[1])
    translate_output()
    options = Options()
    options.realize(["-n", "-c", str(run_dir / "supervisord.conf")])
    options.first, options.test = True, False
    # PID 1 has no default signal handlers; handle a SIGTERM during startup.
    signal.signal(signal.SIGTERM, _leave)
    with contextlib.suppress(asyncore.ExitNow):
        Foreground(options).main()
    options.close_logger()
    return 1 if (run_dir / "failed").exists() else 0


def _leave(*_: object) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
