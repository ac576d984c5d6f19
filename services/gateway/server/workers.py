"""Several workers of one gateway: processes that share a listening socket, each a
gateway of its own in the routing state. A parent starts them, replaces one that
dies, and passes signals on."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import structlog

from libs.common.settings.services import GatewaySettings

log = structlog.get_logger()

LISTENING = "RPX_LISTENING_FD"  # tells a worker its parent's socket
PARENT = "RPX_PARENT_PID"
MARGIN_S = 3.0  # of a worker beyond its drain, before it is killed
LOOK_S = 0.1
# A worker that dies at once would be started without end, and without pause.
RESTART_PAUSE_S = 1.0


class AddressTaken(Exception):
    """Somebody else listens there."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that is bound and not yet listening. Raises `AddressTaken`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(1)  # binding alone does not tell that somebody listens
    except OSError as error:
        sock.close()
        raise AddressTaken(
            f"cannot listen on {host} port {port}: {error.strerror}. Stop what uses "
            "it, or set PROXY_PORT (PROXY_HOST for the address)"
        ) from None
    sock.setblocking(False)
    return sock


def inherited() -> socket.socket | None:
    """The socket a parent gave us, if we are its worker."""
    told = os.environ.pop(LISTENING, None)
    if told is None:
        return None
    sock = socket.socket(fileno=int(told))
    sock.setblocking(False)
    return sock


def orphaned() -> bool:
    """Did our parent die before it could be tied to us?"""
    return os.environ.pop(PARENT, None) != str(os.getppid())


def supervise(settings: GatewaySettings, listening: socket.socket) -> int:
    """Run `PROXY_GATEWAY_WORKERS` workers until SIGTERM or SIGINT; returns the exit
    code."""
    descriptor = listening.fileno()
    environ = {**os.environ, LISTENING: str(descriptor), PARENT: str(os.getpid())}
    command = [sys.executable, "-P", "-m", "services.gateway"]

    def start() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(command, env=environ, pass_fds=[descriptor])  # noqa: S603 - ourselves

    crew = _Crew(start, settings.gateway_workers)
    crew.run()
    listening.close()  # whoever comes now is told so at once
    crew.end(settings.drain_seconds + MARGIN_S)
    return 0


class _Crew:
    def __init__(
        self, start: Callable[[], "subprocess.Popen[bytes]"], size: int
    ) -> None:
        self._start = start
        self._told = False
        self._workers = [start() for _ in range(size)]

    def run(self) -> None:
        """Until a signal."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._tell)
        while not self._told:
            self._replace_the_dead()
            time.sleep(LOOK_S)

    def _tell(self, *_: object) -> None:
        self._told = True

    def _replace_the_dead(self) -> None:
        for position, worker in enumerate(self._workers):
            code = worker.poll()
            if code is None or self._told:
                continue
            log.error("worker died", action="worker_died", code=code)
            time.sleep(RESTART_PAUSE_S)
            if not self._told:
                self._workers[position] = self._start()

    def end(self, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(max(deadline - time.monotonic(), 0))
            if worker.poll() is None:
                worker.kill()
                worker.wait()
