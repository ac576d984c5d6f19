"""A process that has imported our programs, and forks one whenever it is asked to. Run
by `programs.py`: the arguments are the descriptor of the socket that it reads, and the
modules to import.

A request is a JSON object and three descriptors: standard output, standard error, and
the program's own socket. There the answers are written: its process id, and later its
exit status as `subprocess` numbers it. The program remains a zombie until the status is
acknowledged or that socket is closed, so that its process id stays its own."""

import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import types
from contextlib import suppress
from functools import partial
from typing import Any

Request = dict[str, Any]
LARGEST = 1_000_000  # bytes of a request: mostly its environment


def main_of(name: str) -> str:
    """The module that `python -m name` runs as `__main__`."""
    package = hasattr(importlib.import_module(name), "__path__")
    return f"{name}.__main__" if package else name


class Forks:
    """The programs that were started and are not reaped yet."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, self._started)
        self._own: dict[int, socket.socket] = {}  # by process id

    def serve(self) -> Request | None:
        """Until the other side closes the socket. Returns the request in a forked
        program, and None at the end."""
        while True:
            for key, _ in self._selector.select():
                ended, request = key.data()
                if ended:
                    return request  # type: ignore[no-any-return]

    def _started(self) -> tuple[bool, Request | None]:
        text, passed, _, _ = socket.recv_fds(self._control, LARGEST, 3)
        if not text:
            return True, None
        request: Request = json.loads(text)
        pid = os.fork()
        if pid == 0:
            # Their destructors would close descriptors of the program, which get the
            # same numbers.
            self._selector.close()
            for each in (self._control, *self._own.values()):
                each.close()
            become(request, passed)
            return True, request
        self._own[pid] = socket.socket(fileno=passed.pop())
        for descriptor in passed:
            os.close(descriptor)
        end = os.pidfd_open(pid)
        self._selector.register(
            end, selectors.EVENT_READ, partial(self._ended, pid, end)
        )
        return False, None

    def _ended(self, pid: int, end: int) -> tuple[bool, None]:
        """Reports the status. Whoever reads it answers, or closes the socket."""
        self._selector.unregister(end)
        os.close(end)
        info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert info is not None
        exited = info.si_code == os.CLD_EXITED
        with suppress(BrokenPipeError):
            self._own[pid].sendall(
                b"%d" % (info.si_status if exited else -info.si_status)
            )
        self._selector.register(
            self._own[pid], selectors.EVENT_READ, partial(self._reaped, pid)
        )
        return False, None

    def _reaped(self, pid: int) -> tuple[bool, None]:
        own = self._own.pop(pid)
        self._selector.unregister(own)
        os.waitpid(pid, 0)
        with suppress(ConnectionError):
            own.recv(64)  # a close with unread bytes would be an error at the reader
        own.close()
        return False, None


def become(request: Request, passed: list[int]) -> None:
    """What `subprocess` would do for a program: a session of its own, its environment
    and descriptors, and no others."""
    os.setsid()
    os.write(passed[2], b"%d" % os.getpid())  # now its group can be killed
    signal.signal(signal.SIGINT, signal.default_int_handler)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((nothing, passed[0], passed[1])):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environ"])
    sys.argv = request["argv"]


def run(request: Request) -> None:
    """Runs the program as the interpreter does: a module (`-m`) or code (`-c`)."""
    kind, what = request["program"]
    if kind == "-m":
        del sys.modules[main_of(what)]  # runpy warns if it is there
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(what, sys.modules["__main__"].__dict__)  # noqa: S102 - the test's code


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    sys.path.append(os.getcwd())  # `scripts` is not installed
    for name in sys.argv[2:]:
        importlib.import_module(main_of(name))
    sys.path.pop()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pytest
    gc.collect()
    gc.freeze()
    assert len(os.listdir("/proc/self/task")) == 1, "a fork would lose a thread"
    request = Forks(control).serve()
    if request is not None:
        run(request)


if __name__ == "__main__":
    main()
