"""CPU time of processes, from /proc (Linux only). Times are in seconds."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def cores() -> tuple[int, int]:
    """The core of the server under test and the core of everything else. Both are the
    same on a machine with one core."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[1 % len(allowed)]


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    parents = dict(_parents())
    found = [pid]
    for ancestor in found:
        found.extend(child for child, of in parents.items() if of == ancestor)
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """User and system time used by processes, threads included."""
    ticks = 0
    for pid in pids:
        fields = _stat(pid)
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICK


def ended_children_s(pid: int) -> float:
    """User and system time used by the children of a process that have ended."""
    fields = _stat(pid)
    return (int(fields[13]) + int(fields[14])) / TICK


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command name."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _parents() -> Iterable[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            yield int(entry.name), int(_stat(int(entry.name))[1])
        except (OSError, IndexError):
            continue


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds used by each party until `at`."""

    at: float
    server: float
    valkey: float
    load_side: float  # the load, the upstream and valkey share a core
    machine: float  # all processes, on all cores


@dataclass(frozen=True, slots=True)
class Parties:
    """The parties of a measurement, by process id."""

    server: tuple[int, ...]
    upstream: tuple[int, ...]
    valkey: tuple[int, ...] = ()

    def usage(self) -> Usage:
        """The CPU time used so far."""
        valkey = cpu_s(self.valkey)
        return Usage(
            at=time.monotonic(),
            server=cpu_s(self.server),
            valkey=valkey,
            load_side=valkey + cpu_s(self.upstream) + time.process_time(),
            machine=_machine_s(),
        )


def _machine_s() -> float:
    """Busy time of all cores: user, nice, system, irq and softirq."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) / TICK
