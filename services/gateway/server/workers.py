"""Runs several workers: processes that share a listening socket, each a gateway of its
own in the routing state. A parent starts them, restarts one that dies, and passes
signals on."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import structlog

from libs.common.runtime.listening import LISTENING, PARENT, environment
from libs.common.settings.services import GatewaySettings
from services.gateway.scrape import slots

log = structlog.get_logger()

MARGIN_S = 3.0  # after a worker's drain, before it is killed
LOOK_S = 0.1
# Keeps a worker that dies at once from being restarted in a tight loop.
RESTART_PAUSE_S = 1.0


def inherited() -> socket.socket | None:
    """The socket of the parent, in a worker."""
    descriptor = os.environ.pop(LISTENING, None)
    if descriptor is None:
        return None
    sock = socket.socket(fileno=int(descriptor))
    sock.setblocking(False)
    return sock


def orphaned() -> bool:
    """Whether the parent died before this worker could watch it."""
    return os.environ.pop(PARENT, None) != str(os.getppid())


def supervise(settings: GatewaySettings, listening: socket.socket) -> int:
    """Run `PROXY_GATEWAY_WORKERS` workers until SIGTERM or SIGINT. Returns the exit
    code."""
    descriptor = listening.fileno()
    environ = environment(os.environ, listening)
    command = [sys.executable, "-P", "-m", "services.gateway"]

    size, memory = settings.gateway_workers, slots.create()

    def start(position: int) -> "subprocess.Popen[bytes]":
        own = {**environ, **slots.environment(memory, position, size)}
        passed = [descriptor, memory]
        return subprocess.Popen(command, env=own, pass_fds=passed)  # noqa: S603 - ourselves

    workers = _Workers(start, size)
    workers.run()
    listening.close()  # new clients are refused at once
    workers.end(settings.drain_seconds + MARGIN_S)
    return 0


class _Workers:
    def __init__(
        self, start: Callable[[int], "subprocess.Popen[bytes]"], size: int
    ) -> None:
        self._start = start
        self._stopping = False
        self._workers = [start(position) for position in range(size)]

    def run(self) -> None:
        """Until a signal."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while not self._stopping:
            self._restart_dead()
            time.sleep(LOOK_S)

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _restart_dead(self) -> None:
        for position, worker in enumerate(self._workers):
            code = worker.poll()
            if code is None or self._stopping:
                continue
            log.error("worker died", action="worker_died", code=code, position=position)
            time.sleep(RESTART_PAUSE_S)
            if not self._stopping:
                self._workers[position] = self._start(position)

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
