"""Counts the instructions of a gateway under valgrind, without the kernel's."""

import subprocess
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
    """A gateway that was started `under(out)`."""

    def __init__(self, server: Server, out: Path) -> None:
        self._server = server
        self._out = out
        self.pid = next(pid for pid in server.parties.server if _is_valgrind(pid))

    async def per_request(self, what: load.Load, answers: int) -> float:
        """Instructions for each answer."""
        await self._server.tidy()
        await load.complete(what, self._server.port, answers // 4)
        self._control("--instr=on")
        self._control("--zero")
        count = await load.complete(what, self._server.port, answers)
        self._control("--dump")
        self._control("--instr=off")
        dumps = len(list(self._out.parent.glob(f"{self._out.name}.*")))
        return _total(Path(f"{self._out}.{dumps}")) / count

    def _control(self, option: str) -> None:
        command = ["callgrind_control", option, str(self.pid)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)


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
