"""Counts the instructions of a gateway, and of its Redis, under valgrind, without the
kernel's."""

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.parts import load
from bench.parts.servers import Server


def under(out: Path) -> tuple[str, ...]:
    """What a command is started with, so that its instructions can be counted."""
    return (
        "valgrind", "--tool=callgrind", "--instr-atstart=no", "--quiet",
        f"--callgrind-out-file={out}",
    )  # fmt: skip


class Counted:
    """A process that was started `under(out)`."""

    def __init__(self, pids: Iterable[int], out: Path) -> None:
        """`pids`: the process is one of them."""
        self._out = out
        self.pid = next(pid for pid in pids if _is_valgrind(pid))

    def begin(self) -> None:
        self._control("--instr=on")
        self._control("--zero")

    def end(self) -> int:
        """Instructions since `begin`."""
        self._control("--dump")
        self._control("--instr=off")
        dumps = len(list(self._out.parent.glob(f"{self._out.name}.*")))
        return _total(Path(f"{self._out}.{dumps}"))

    def _control(self, option: str) -> None:
        command = ["callgrind_control", option, str(self.pid)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)


async def per_request(
    server: Server, counted: Sequence[Counted], what: load.Load, answers: int
) -> list[float]:
    """Instructions of each process for each answer."""
    await server.tidy()
    await load.complete(what, server.port, answers // 4)
    for each in counted:
        each.begin()
    count = await load.complete(what, server.port, answers)
    return [each.end() / count for each in counted]


def _total(dump: Path) -> int:
    lines = dump.read_text().splitlines()
    (total,) = [line for line in lines if line.startswith("totals:")]
    return int(total.split()[1])


def _is_valgrind(pid: int) -> bool:
    return (
        b"callgrind"
        in Path(f"/proc/{pid}/comm").read_bytes()
        + Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    )
