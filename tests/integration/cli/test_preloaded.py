"""Programs that tests fork from a process with their imports end, fail and are killed
as those that start an interpreter."""

import os
import signal
import sys
from pathlib import Path

import pytest

from libs.cli.commands import PYTHON, simulator_command
from tests.support.preloaded import programs
from tests.support.processes.ports import free_port
from tests.support.processes.processes import ROOT, Process

DOCTOR = (*PYTHON, "libs.cli.operations.doctor", "--help")
MODULES = ("shlex",)


def done(code: str, **environ: str) -> tuple[int, str, str]:
    command = [sys.executable, "-c", code]
    ended = programs.completed(command, environ, ROOT, MODULES)
    return ended.returncode, ended.stdout, ended.stderr


def test_the_exit_code_and_both_outputs_come_back() -> None:
    code = "import os, sys; print(os.environ['A']); sys.exit('no ' + os.getcwd())"
    assert done(code, A="b") == (1, "b\n", f"no {ROOT}\n")


def test_nothing_of_the_tests_is_inherited() -> None:
    """Neither variables nor descriptors; the session is its own."""
    code = (
        "import os; print(sorted(os.environ), len(os.listdir('/proc/self/fd')),"
        " os.getsid(0) == os.getpid())"
    )
    # Three, and the one that lists them.
    assert done(code, A="b") == (0, "['A'] 4 True\n", "")


def test_an_error_is_a_traceback() -> None:
    code, out, err = done("1 / 0")
    assert (code, out) == (1, "")
    assert err.rstrip().endswith("ZeroDivisionError: division by zero")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_is_the_status(number: int, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        output = (out.fileno(), out.fileno())
        words = [sys.executable, "-c", "import signal; signal.pause()"]
        program = programs.start(words, {}, tmp_path, output, MODULES)
    assert program is not None
    assert program.poll() is None
    program.send_signal(number)
    assert program.wait(20) == -number
    assert program.poll() == -number


def test_it_runs_what_an_interpreter_runs(tmp_path: Path) -> None:
    texts = []
    for path in ("", str(tmp_path)):  # another path starts an interpreter
        environ = {**os.environ, **({"PYTHONPATH": path} if path else {})}
        ended = programs.completed(DOCTOR, environ, ROOT)
        assert (ended.returncode, ended.stderr) == (0, "")
        texts.append(ended.stdout)
    assert texts[0] == texts[1] != ""


def test_a_killed_one_is_gone(tmp_path: Path) -> None:
    command = simulator_command("127.0.0.1", free_port(), "sk-a=a")
    process = Process(command, {}, tmp_path / "log")
    process.kill()
    assert not process.alive
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
