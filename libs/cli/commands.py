"""The command line of each service, by name. libs may not import services. (pure)"""

import math
import sys
from collections.abc import Mapping

from libs.common.settings.base import CommonSettings

SERVICES = ("ingest", "router", "health", "gateway")

# -P: a folder named `services` or `libs` in the working directory must not shadow ours.
PYTHON = (sys.executable, "-P", "-m")

# Added to the drain time: how long Granian waits for its workers before it kills them.
KILL_MARGIN_SECONDS = 2


def service_command(
    name: str, environ: Mapping[str, str], drain_seconds: float | None = None
) -> list[str]:
    """The arguments, program first, that run service `name` in the foreground."""
    if name == "router":
        common = CommonSettings.read(environ)
        return [
            *_granian(name, common.host_of(name), common.router_port),
            *("--workers", "1"),
            *_drain(drain_seconds or common.drain_seconds),
        ]
    return [*PYTHON, f"services.{name}"]


def simulator_command(
    host: str, port: int, keys: str, announce: str | None = None
) -> list[str]:
    command = [*PYTHON, "libs.simulator", "--host", host]
    command += ["--port", str(port), "--keys", keys]
    return command + (["--announce", announce] if announce else [])


def _granian(name: str, host: str, port: int) -> list[str]:
    return [
        *(*PYTHON, "libs.cli.process.serve", f"services.{name}.app:create_app"),
        *("--interface", "asgi", "--factory"),
        *("--host", host, "--port", str(port), "--loop", "uvloop"),
        # At level info Granian logs every chunk that is sent after a disconnect.
        *("--log-level", "warning", "--respawn-failed-workers"),
    ]


def _drain(seconds: float) -> list[str]:
    # Without a limit Granian waits for open connections forever.
    kill_after = math.ceil(seconds) + KILL_MARGIN_SECONDS
    return ["--workers-kill-timeout", str(kill_after)]
