"""Gives processes a small share of a core by the kernel's quota (cgroup cpu), so that
many fit on a machine with few cores."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup/cpu")
PERIOD_US = 20_000


def allowed() -> bool:
    """Whether this process may set quotas."""
    return os.access(GROUPS / "cpu.cfs_period_us", os.W_OK)


@contextlib.contextmanager
def limited(
    pids: Iterable[int], share: float, period_us: int = PERIOD_US
) -> Iterator[None]:
    """Put each process into a group of its own, which gets this share of a core."""
    groups = []
    try:
        for pid in pids:
            group = GROUPS / f"bench-{pid}"
            group.mkdir()
            groups.append(group)
            (group / "cpu.cfs_period_us").write_text(str(period_us))
            (group / "cpu.cfs_quota_us").write_text(str(int(period_us * share)))
            (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for group in groups:
            for member in (group / "cgroup.procs").read_text().split():
                (GROUPS / "cgroup.procs").write_text(member)
            group.rmdir()
