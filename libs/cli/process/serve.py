"""Serves an ASGI application with Granian:
`python -P -m libs.cli.process.serve APP HOST PORT KILL_AFTER`, the last in seconds.

Without Granian's command line, which takes a third of its start, and which would put
the working directory first on the path, where another package named `services` may be.
Workers exit when their main process is killed; otherwise an orphaned worker serves the
port forever, beside its successor. Log lines are JSON."""

import multiprocessing
import os
import sys
from typing import Any, cast

from granian import Granian, log
from granian.constants import Interfaces, Loops
from granian.errors import FatalError
from granian.http import HTTP1Settings, HTTP2Settings

from libs.cli.process.lifeline import die_with_parent
from libs.common.runtime.json_lines import Formatter
from libs.common.runtime.program import load


def main() -> None:
    app, host, port, kill_after = sys.argv[1:]
    formatters = cast(dict[str, Any], log.LOGGING_CONFIG["formatters"])
    formatters["generic"] = {"()": Formatter, "service": app.split(".")[1]}
    if sys.platform == "linux":
        # As by default up to Python 3.13. A spawned worker would import everything
        # again, and would live on when its main process is killed.
        multiprocessing.set_start_method("fork")
    os.register_at_fork(after_in_child=die_with_parent)
    server = Granian(
        app,
        host,
        int(port),
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        http1_settings=HTTP1Settings(),  # they limit the time for a request's head
        http2_settings=HTTP2Settings(),
        # At level info Granian logs every chunk that is sent after a disconnect.
        log_level=log.LogLevels.warning,
        respawn_failed_workers=True,
        # Without a limit Granian waits for open connections forever.
        workers_kill_timeout=int(kill_after),
    )
    try:
        server.serve(target_loader=_loaded)
    except FatalError:  # it has said why
        sys.exit(1)


def _loaded(app: str) -> Any:
    """The application, in a worker."""
    module, _, factory = app.partition(":")
    return getattr(load(module), factory)()


if __name__ == "__main__":
    main()
