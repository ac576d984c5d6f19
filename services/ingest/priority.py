"""Lets gateways of the same machine run first. What ingest stores a moment later, no
client waits for."""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

# A third of the share of a gateway that competes for the same core. That is still far
# more than ingest needs for what the gateway can serve with the rest.
NICENESS = 5
# On a machine of so many CPUs ingest runs on one. Otherwise the kernel moves it to
# whichever is free for a moment, and a gateway or Redis that wakes up there waits until
# ingest's turn ends (docs/benchmarks.md). With more CPUs, there is a free one for both.
FEW_CPUS = 3
Cpus = frozenset[int]
BEHIND_S = 4.0  # older events than that: ingest takes all CPUs
CAUGHT_UP_S = 2.0  # a batch of a moderate rate is up to 1.4 s old


def give_way() -> None:
    """Lower the priority of this thread and of those that it starts. Call once at
    start."""
    with suppress(OSError):  # a sandbox may forbid it
        os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, _niceness()))


def _niceness() -> int:
    """What the supervisor chose."""
    return os.getpriority(os.PRIO_PROCESS, 0)


def cpus() -> Cpus:
    """The CPUs that this process may use; none where that cannot be told."""
    try:
        return frozenset(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on Linux, or a sandbox forbids it
        return frozenset()


def run_on(chosen: Cpus) -> None:
    """Let all threads of this process run on these CPUs only."""
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError):  # it has ended, or a sandbox forbids it
            os.sched_setaffinity(int(thread), chosen)


class Confined:
    """Keeps ingest on one of few CPUs while it keeps up. One that is behind needs all,
    because decoding and storing are parallel."""

    def __init__(self, allowed: Cpus, run_on: Callable[[Cpus], None] = run_on) -> None:
        self._allowed: Final = allowed
        # A fixed one, so that operators can keep Postgres there too.
        self._one: Final = frozenset([max(allowed)]) if allowed else allowed
        self._run_on = run_on
        self._behind: set[str] = set()  # streams
        self._is_confined = False
        self._apply()

    def lagged(self, stream: str, lag_s: float) -> None:
        """How old the oldest event of a batch of a stream was when it was stored."""
        if lag_s > BEHIND_S:
            self._behind.add(stream)
        elif lag_s < CAUGHT_UP_S:
            self._behind.discard(stream)
        self._apply()

    def _apply(self) -> None:
        confined = 1 < len(self._allowed) <= FEW_CPUS and not self._behind
        if confined != self._is_confined:
            self._is_confined = confined
            self._run_on(self._one if confined else self._allowed)
