"""Queues of requests that wait: the rules of services/router/functions/queue.lua in
Python. Only tests use it: a gateway without Redis limits nothing."""

import math
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field

from libs.common.routing.types import Ask, Place

MOST = 1_000
AGAIN_MS = 250
SILENT_MS = 2_000
POLL_MS, POLL_MORE_MS = 10, 5

Entry = tuple[float, str]  # virtual start, entry


def share_of(entry: str) -> str:
    return entry.split("|", 1)[1].rsplit("|", 1)[0]


def gateway_of(entry: str) -> str:
    return entry.rsplit("|", 1)[1]


@dataclass
class Queue:
    """The requests that wait for the same resources."""

    time: float = 0  # virtual: the start of the last one served
    order: list[Entry] = field(default_factory=list)
    ends: dict[str, float] = field(default_factory=dict)  # share -> its last finish
    due: dict[str, float] = field(default_factory=dict)  # entry -> Unix ms
    gateways: dict[str, float] = field(default_factory=dict)  # -> Unix ms of its call
    served_at: float | None = None
    pace_ms: float | None = None

    def find(self, entry: str) -> Entry | None:
        return next((each for each in self.order if each[1] == entry), None)

    @property
    def shares(self) -> list[str]:
        return [share_of(entry) for _, entry in self.order]

    def refuses(self, share: str) -> bool:
        waiting, shares = len(self.order), self.shares
        if waiting >= 2 * MOST:
            return True
        mine = shares.count(share)
        return waiting >= MOST and mine * max(len(set(shares)), 1) >= MOST

    def add(self, entry: str, place: Place) -> None:
        start = max(self.time, self.ends.get(place.share, 0))
        insort(self.order, (start, entry))
        self.ends[place.share] = start + 1 / place.weight

    def heads(self, now: float, count: float) -> list[str]:
        """The first entries that are due."""
        due = [entry for _, entry in self.order if self.due.get(entry, 0) <= now]
        return due if math.isinf(count) else due[: int(count)]

    def remove(self, entry: str, now: float, *, served: bool) -> bool:
        found = self.find(entry)
        if found is None:
            return False
        self.order.remove(found)
        self.due.pop(entry, None)
        if served:
            self._note_served(found[0], now)
        return True

    def _note_served(self, start: float, now: float) -> None:
        self.time = max(start, self.time)
        between = now - (now if self.served_at is None else self.served_at)
        if self.pace_ms is None:
            self.pace_ms = between
        else:
            self.pace_ms += (between - self.pace_ms) / 8
        self.served_at = now
        self.ends = {s: end for s, end in self.ends.items() if end > self.time}


class Queues:
    """All queues. `free` says how many more requests the resources of a class may have
    in flight."""

    def __init__(self, free: Callable[[str], float]) -> None:
        self._free = free
        self.by_class: dict[str, Queue] = {}

    def in_turn(self, waits_for: str, entry: str, now: float) -> bool:
        free, queue = self._free(waits_for), self.by_class.get(waits_for)
        if math.isinf(free) or queue is None:
            return True
        heads = queue.heads(now, free)
        return len(heads) < free or entry in heads

    def join(self, waits_for: str, ask: Ask, now: float, due: float | None) -> bool:
        """False if the queue is full."""
        place = ask.place
        assert place is not None
        entry = place.entry(ask)
        queue = self.by_class.setdefault(waits_for, Queue())
        if queue.find(entry) is None:
            self._purge(waits_for, now)
            queue = self.by_class.setdefault(waits_for, Queue())
            if queue.refuses(place.share):
                return False
            queue.add(entry, place)
        queue.due.pop(entry, None)
        if due is not None:
            queue.due[entry] = due
        queue.gateways[ask.gateway_id] = now
        return True

    def leave(self, entry: str, now: float, *, served: bool = False) -> int:
        classes = list(self.by_class)
        return sum(self._remove(each, entry, now, served) for each in classes)

    def wait_of(self, waits_for: str) -> float:
        queue = self.by_class.get(waits_for, Queue())
        return min(max((len(queue.order) + 1) * (queue.pace_ms or 0), 1_000), 60_000)

    def turns(
        self, gateway_id: str, classes: list[str], now: float
    ) -> tuple[float, list[str]]:
        found, most = [], 1
        for waits_for in classes:
            if waits_for not in self.by_class:
                continue
            self.by_class[waits_for].gateways[gateway_id] = now
            self._purge(waits_for, now)
            queue = self.by_class.get(waits_for)
            if queue is None:
                continue
            heads = queue.heads(now, self._free(waits_for))
            found += [h.split("|")[0] for h in heads if gateway_of(h) == gateway_id]
            most = max(most, len(queue.gateways))
        return (POLL_MS + (most - 1) * POLL_MORE_MS) / 1000, found

    def waiting(self) -> dict[str, tuple[int, int]]:
        """Class -> requests, shares."""
        return {
            name: (len(queue.order), len(set(queue.shares)))
            for name, queue in self.by_class.items()
        }

    def _purge(self, waits_for: str, now: float) -> None:
        queue = self.by_class[waits_for]
        silent = {g for g, at in queue.gateways.items() if at <= now - SILENT_MS}
        for _, entry in list(queue.order):
            if gateway_of(entry) in silent:
                self._remove(waits_for, entry, now, False)
        for gateway in silent:
            queue.gateways.pop(gateway, None)

    def _remove(self, waits_for: str, entry: str, now: float, served: bool) -> bool:
        queue = self.by_class[waits_for]
        removed = queue.remove(entry, now, served=served)
        if removed and not queue.order:
            del self.by_class[waits_for]
        return removed
