"""Supervisord event listener that watches the services:
`python -m libs.cli.readiness_listener RUN_DIR`.

Prints the banner once all services are ready. Stops everything if a service cannot
start or the gateway does not become ready in time."""

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

from libs.cli.process import descriptors
from libs.cli.process.briefing import Briefing
from libs.cli.readiness import readiness
from libs.common.admin_token import login_link, read_file
from libs.common.runtime.json_lines import OUTPUT

GATEWAY_DEADLINE_SECONDS = 60.0  # usually 2 to 4; a machine may have other work
OTHERS_DEADLINE_SECONDS = 10.0  # then the banner is printed if the gateway is ready
POLL_SECONDS = 0.05
LAST_LINES = 15
REQUEST = (
    "-H 'content-type: application/json' "
    """-d '{"model":"gpt-5.5","input":"Say hello"}'"""
)


class Problem(NamedTuple):
    """Why everything is stopped, and the services whose logs to quote."""

    text: str
    services: tuple[str, ...]


def main() -> None:
    run_dir = Path(sys.argv[1])
    briefing = Briefing.read(run_dir)
    with os.fdopen(descriptors.OUTPUT, "w", closefd=False) as output:
        problem = _until_ready(briefing)
        if problem is None:
            print(announcement(briefing), file=output, flush=True)
            problem = _until_fatal()
        print(obituary(briefing, problem), file=output, flush=True)
    (run_dir / "failed").touch()
    os.kill(os.getppid(), signal.SIGTERM)


def _until_ready(briefing: Briefing) -> Problem | None:
    """Wait until the services are ready, or the gateway alone after a while; None
    then."""
    _tell("READY")
    addresses = briefing.addresses
    # Each is asked until it is ready, then the next: an answer takes a millisecond of a
    # start. The gateway's also takes one of the router, and is the last to be ready.
    waiting = sorted(addresses, key="gateway".__eq__)
    while True:
        if _event_within(POLL_SECONDS):
            return _fatal()
        while waiting and readiness(addresses[waiting[0]]) is None:
            del waiting[0]
        waited = time.time() - briefing.started_at
        late = waited > OTHERS_DEADLINE_SECONDS
        if not waiting or (late and readiness(addresses["gateway"]) is None):
            return None
        if waited > GATEWAY_DEADLINE_SECONDS:
            states = {name: readiness(addresses[name]) for name in waiting}
            said = "; ".join(f"{name}: {state}" for name, state in states.items())
            return Problem(f"not ready after {waited:.0f} s: {said}", tuple(waiting))


def _until_fatal() -> Problem:
    _event_within(None)
    return _fatal()


def _fatal() -> Problem:
    """Read the waiting event. Only one kind is subscribed to: a program is FATAL."""
    header = _pairs(sys.stdin.readline())
    body = _pairs(sys.stdin.read(int(header.get("len", "0"))))
    name = body.get("processname", "a service")
    return Problem(f"{name} did not start", (name,))


def _pairs(line: str) -> dict[str, str]:
    return dict(part.split(":", 1) for part in line.split() if ":" in part)


def _event_within(seconds: float | None) -> bool:
    return bool(select.select([sys.stdin], [], [], seconds)[0])


def _tell(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def announcement(briefing: Briefing) -> str:
    gateway = briefing.addresses["gateway"]
    late = [
        f"  warning    {name} is not ready: {state}"
        for name, url in briefing.addresses.items()
        if (state := readiness(url)) is not None
    ]
    seconds = time.time() - briefing.started_at
    return "\n".join(
        [
            f"responses-proxy is ready ({seconds:.1f} s)",
            *late,
            *(f"  {what:<10} {which}" for what, which in briefing.choices),
            *(f"  {name:<10} {url}" for name, url in briefing.addresses.items()),
            f"  dashboard  {_dashboard(briefing)}",
            f"  logs       {briefing.logs}",
            "Try it:",
            f"  curl {gateway}/v1/responses {REQUEST}",
        ]
    )


def _dashboard(briefing: Briefing) -> str:
    """The dashboard's URL; a login link if `up` keeps the token."""
    gateway = briefing.addresses["gateway"]
    token = briefing.token_dir and read_file(Path(briefing.token_dir))
    return login_link(gateway, token) if token else f"{gateway}/"


def obituary(briefing: Briefing, problem: Problem) -> str:
    lines = [f"responses-proxy: {problem.text}"]
    for service in problem.services:
        path = Path(briefing.logs) / f"{service}.log"
        lines.append(f"Last lines of {path}:")
        lines += [f"  | {line}" for line in last_lines(path)]
    return "\n".join([*lines, "responses-proxy: stopping all services"])


def last_lines(path: Path) -> list[str]:
    try:
        with path.open(errors="replace") as lines:
            return [_readable(line.rstrip()) for line in deque(lines, LAST_LINES)]
    except OSError:
        return []


def _readable(line: str) -> str:
    """What the program wrote, if it did not write JSON."""
    with contextlib.suppress(ValueError, AttributeError):
        fields = json.loads(line)
        if fields.get("action") == OUTPUT:
            return str(fields.get("message"))
    return line


if __name__ == "__main__":
    main()
