"""Runs supervisord as a foreground command:
`python -m libs.cli.process.supervisord RUN_DIR`. It exits with 1 when the readiness
listener gave up. It treats SIGHUP, which a closing terminal sends, as a request to
stop, not to restart."""

import contextlib
import signal
import sys
from pathlib import Path

from supervisor.medusa import asyncore_25 as asyncore
from supervisor.options import ServerOptions
from supervisor.states import SupervisorStates
from supervisor.supervisord import Supervisor


class Foreground(Supervisor):  # type: ignore[misc]  # untyped library
    def runforever(self) -> None:
        # At once: the loop begins with waiting for a second.
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
    options = ServerOptions()
    options.realize(["-n", "-c", str(run_dir / "supervisord.conf")])
    options.first, options.test = True, False
    # As PID 1 it gets no default reaction to a signal that comes early.
    signal.signal(signal.SIGTERM, _leave)
    with contextlib.suppress(asyncore.ExitNow):
        Foreground(options).main()
    options.close_logger()
    return 1 if (run_dir / "failed").exists() else 0


def _leave(*_: object) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
