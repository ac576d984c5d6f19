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
        seconds = math.ceil(drain_seconds or common.drain_seconds)
        return [
            *(*PYTHON, "libs.cli.process.serve", "services.router.app:create_app"),
            *(common.host_of(name), str(common.router_port)),
            str(seconds + KILL_MARGIN_SECONDS),
        ]
    return [*PYTHON, f"services.{name}"]


def simulator_command(
    host: str, port: int, keys: str, announce: str | None = None
) -> list[str]:
    command = [*PYTHON, "libs.simulator", "--host", host]
    command += ["--port", str(port), "--keys", keys]
    return command + (["--announce", announce] if announce else [])
