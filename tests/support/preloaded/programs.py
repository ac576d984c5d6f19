"""Starts our programs as forks of a process that has already imported them. A fork
takes a quarter of the CPU that starting an interpreter and importing take (0.3 to
0.4 s), and most tests of processes start several.

A program so started runs its `__main__` in its own session, with its own environment
and descriptors; only the imports are shared. What is not listed here starts an
interpreter, as do the programs that `up`, workers and `--reload` start, and everything
while coverage is measured."""

import atexit
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

RUN = "from libs.cli.main import run; run()"
PRODUCT = (
    *("services.gateway", "services.health", "services.ingest", "libs.simulator"),
    *("libs.cli.process.serve", "libs.cli.operations.dead_letters"),
    *("libs.cli.operations.doctor", "libs.cli.operations.admin_token"),
    *("libs.cli.operations.migrate", "libs.cli.main"),
    # What these load.
    *("services.gateway.process", "services.health.app", "services.ingest.app"),
    *("services.router.app", "libs.simulator.process", "libs.cli.command_line"),
)
_ROOT = Path(__file__).resolve().parents[3]
_SERVER = Path(__file__).with_name("server.py")
_COVERAGE = {"COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"}


class Program:
    """A started program: what tests use of `subprocess.Popen`."""

    def __init__(self, own: socket.socket) -> None:
        self._own = own
        told = own.recv(64)
        if not told:
            raise RuntimeError("the server of preloaded programs ended")
        self.pid = int(told)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._status(0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._status(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def _status(self, timeout_s: float | None) -> int | None:
        if self.returncode is None:
            waiting = select.poll()
            waiting.register(self._own, select.POLLIN)
            if not waiting.poll(None if timeout_s is None else timeout_s * 1000):
                return None
            self.returncode = int(self._own.recv(64))
            with suppress(ConnectionError):
                self._own.sendall(b"read")
                self._own.recv(64)  # its end: the process id is free
            self._own.close()
        return self.returncode


def start(
    command: Sequence[str],
    environ: Mapping[str, str],
    cwd: Path,
    output: tuple[int, int],
    modules: tuple[str, ...] = PRODUCT,
) -> Program | None:
    """`output` are the descriptors of standard output and error; `modules` are those to
    be imported before. None for a command that must start an interpreter of its own."""
    program = _program(command, environ, modules)
    if program is None:
        return None
    kind, what, arguments = program
    request = {
        "program": (kind, what),
        "argv": [kind, *arguments],
        "environ": dict(environ),
        "cwd": str(cwd),
    }
    own, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    text = json.dumps(request).encode()
    try:
        with theirs:
            socket.send_fds(_server(modules), [text], [*output, theirs.fileno()])
        return Program(own)
    except BaseException:
        own.close()
        raise


def completed(
    command: Sequence[str],
    environ: Mapping[str, str],
    cwd: Path,
    modules: tuple[str, ...] = PRODUCT,
    timeout: float = 60,
) -> "subprocess.CompletedProcess[str]":
    """As `subprocess.run`, with the output as text."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        output = (out.fileno(), err.fileno())
        program = start(command, environ, cwd, output, modules)
        if program is None:
            return subprocess.run(
                command, env=environ, capture_output=True, text=True, timeout=timeout,
                cwd=cwd, check=False,
            )  # fmt: skip
        try:
            code = program.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, 9)
            raise
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(list(command), code, *texts)


def _program(
    command: Sequence[str], environ: Mapping[str, str], modules: tuple[str, ...]
) -> tuple[str, str, list[str]] | None:
    """`-m` or `-c`, the module or code, and the arguments."""
    words = [str(word) for word in command]
    # Another path is that of other code.
    other = environ.get("PYTHONPATH") not in (None, os.environ.get("PYTHONPATH"))
    if words[0] != sys.executable or other or _COVERAGE & environ.keys():
        return None
    if words[1] == "-P":
        del words[1]
    kind, what, *arguments = words[1:]
    if kind == "-c":
        known = what == RUN or modules is not PRODUCT
    else:
        known = kind == "-m" and what in modules
    return (kind, what, arguments) if known else None


@cache
def _server(modules: tuple[str, ...]) -> socket.socket:
    """One for this process. It ends when the socket is closed, at the latest by the end
    of this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        number = theirs.fileno()
        server = subprocess.Popen(
            [sys.executable, "-P", _SERVER, str(number), *modules],
            stdin=subprocess.DEVNULL, pass_fds=[number], start_new_session=True,
            cwd=_ROOT,
        )  # fmt: skip

    def end() -> None:
        ours.close()
        server.wait(10)

    atexit.register(end)
    return ours
