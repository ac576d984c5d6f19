"""Answers `/metrics` for all workers of a gateway: each publishes what it counted, and
the one that is asked adds them up.

All figures come from what was published, the own ones included, so that no counter
decreases when the next scrape reaches another worker."""

import os
import time
from collections.abc import Mapping

import msgspec
import structlog

from services.gateway import metrics
from services.gateway.metrics import Family, Sample
from services.gateway.scrape.exposition import exposition
from services.gateway.scrape.slots import Slots
from services.gateway.scrape.snapshot import (
    Snapshot,
    Values,
    added,
    counted,
    decoded,
)

log = structlog.get_logger()


class Scrape:
    """The metrics of this worker and, with `slots`, of its siblings."""

    def __init__(self, slots: Slots | None = None) -> None:
        self._slots = slots
        self._siblings: dict[int, Snapshot] = {}  # as last read, by position
        self._base: Values = {}
        self._too_large = False
        if slots is not None:
            before = _decoded(slots.read(slots.position))
            if before is not None:
                self._base = counted(_families(), before.values)

    def publish(self) -> None:
        """Publish what this worker counted, if others may be asked for it."""
        if self._slots is not None:
            self._own()

    def _own(self) -> Values:
        """What this worker counted, which is published, too."""
        values = read()
        if self._base:
            values = added(_families(), (self._base, values))
        if self._slots is not None:
            fits = self._slots.write(Snapshot(os.getpid(), values).encoded())
            if not fits and not self._too_large:
                log.error(
                    "metrics are too large to be shared between workers",
                    action="metrics_too_large",
                )
            self._too_large = not fits
        return values

    def text(self) -> bytes:
        """The answer of `/metrics`."""
        families = _families()
        parts = [self._own()]
        if self._slots is not None:
            for position, data in self._slots.others():
                found = _decoded(data) or self._siblings.get(position)
                if found is not None:
                    self._siblings[position] = found
                    alive = _is_alive(found.pid)
                    parts.append(
                        found.values if alive else counted(families, found.values)
                    )
        return exposition(families, added(families, parts))


def read() -> Values:
    """What this process counted."""
    return {name: samples() for name, (_, samples) in metrics.families.items()}


def _families() -> Mapping[str, Family]:
    return {name: family for name, (family, _) in metrics.families.items()}


def _decoded(data: bytes) -> Snapshot | None:
    try:
        return decoded(data) if data else None
    except msgspec.MsgspecError:
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


_STARTED = time.time()


def _resident_bytes() -> list[Sample]:
    try:
        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[1])
    except OSError:
        return []
    return [((), [pages * os.sysconf("SC_PAGE_SIZE")])]


metrics.register(
    Family(
        "process_cpu_seconds_total", "counter", "CPU time of the gateway's workers."
    ),
    lambda: [((), [time.process_time()])],
)
metrics.register(
    Family("process_resident_memory_bytes", "gauge", "Resident memory of the workers."),
    _resident_bytes,
)
metrics.register(
    Family(
        "process_start_time_seconds",
        "gauge",
        "Unix time when the oldest worker started.",
        merge="min",
    ),
    lambda: [((), [_STARTED])],
)
metrics.watch("proxy_workers", "Worker processes of this gateway.", lambda: 1)
