"""Simulates a pool of keys that is split over the hash tags of a Redis Cluster: how
evenly its parts and its keys are loaded, compared with one tag. Deterministic.

A new session chooses a part and then, by the rules of `libs.common.routing.policy`, the
least loaded key of that part. Its later requests use the same key (session affinity).
The part is chosen by the hash of the session's id, or as the less loaded of two parts
by that hash, whose loads the gateway knows from its last heartbeat."""

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from redis.crc import key_slot

from libs.common.routing.policy import Question, Standing, by_load
from libs.common.routing.types import digest

KEYS = 64
REQUESTS = 20_000
RATE_S = 40.0  # arrivals in a second, at random (Poisson)
SECONDS = 15.0  # mean duration, exponential: about ten requests under way for each key
TURNS = 20  # mean number of requests in a session; 1: no sessions
WARM_UP = 4_000  # requests before anything is recorded
HEARTBEAT_S = 1.0
SLOTS = 16_384


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over all arrivals after the warm-up."""

    busiest_part: float  # its requests under way, as a multiple of the mean part's
    busiest_key: float  # the same of keys
    calls: float  # acquires of the part with most, as a multiple of the mean


@dataclass(slots=True)
class _Pool:
    """Requests under way by key, and what gateways last heard of it by part."""

    parts: int
    busy: list[int] = field(default_factory=lambda: [0] * KEYS)
    ends: list[tuple[float, int]] = field(default_factory=list)
    heard: list[int] = field(default_factory=list)
    heard_at: float = -HEARTBEAT_S

    def keys_of(self, part: int) -> range:
        return range(part, KEYS, self.parts)

    def load(self) -> list[int]:
        return [sum(self.busy[k] for k in self.keys_of(p)) for p in range(self.parts)]

    def advance(self, now: float) -> None:
        while self.ends and self.ends[0][0] <= now:
            self.busy[heapq.heappop(self.ends)[1]] -= 1
        if now - self.heard_at >= HEARTBEAT_S:
            self.heard, self.heard_at = self.load(), now

    def least_loaded(self, part: int, draw: int) -> int:
        standings = [
            Standing(str(key), "a", 1.0, self.busy[key], 0)
            for key in self.keys_of(part)
        ]
        chosen = by_load(standings, Question(0, draw), "weighted_least_connections")
        return int(chosen.resource_id or 0)


Choose = Callable[[_Pool, str], int]


def by_hash(pool: _Pool, session: str) -> int:
    return int(digest(session), 16) % pool.parts


def of_two(pool: _Pool, session: str) -> int:
    """The less loaded of two parts, by loads that are up to a heartbeat old."""
    value = int(digest(session), 16)
    one, two = value % pool.parts, (value >> 64) % pool.parts
    return min(one, two, key=lambda part: pool.heard[part])


def simulate(parts: int, choose: Choose, turns: int = TURNS, seed: int = 1) -> Quality:
    draw = random.Random(seed)  # noqa: S311 - repeatable
    pool, sessions = _Pool(parts), list[int]()
    now, part_peaks, key_peaks = 0.0, [], []
    calls: Counter[int] = Counter()
    for number in range(REQUESTS):
        now += draw.expovariate(RATE_S)
        pool.advance(now)
        if sessions and draw.random() >= 1 / turns:
            key = draw.choice(sessions)
        else:
            key = _begin(pool, sessions, choose(pool, f"session-{number}"), draw)
        pool.busy[key] += 1
        heapq.heappush(pool.ends, (now + draw.expovariate(1 / SECONDS), key))
        calls[key % parts] += 1
        if number >= WARM_UP:
            part_peaks.append(_peak(pool.load()))
            key_peaks.append(_peak(pool.busy))
    most = max(calls.values()) * parts / REQUESTS
    return Quality(fmean(part_peaks), fmean(key_peaks), most)


def _begin(pool: _Pool, sessions: list[int], part: int, draw: random.Random) -> int:
    """The key of a new session. The number of open sessions is bounded."""
    key = pool.least_loaded(part, draw.randrange(2**31))
    sessions.append(key)
    if len(sessions) > KEYS * TURNS:
        sessions.pop(draw.randrange(len(sessions)))
    return key


def _peak(loads: Sequence[int]) -> float:
    return max(loads) * len(loads) / max(sum(loads), 1)


# Tags on the nodes of a cluster ---------------------------------------------------


def busiest_node(names: Sequence[str], nodes: int) -> float:
    """Tags on the node that has most, as a multiple of the mean. Each node has an equal
    range of slots."""
    on = Counter(key_slot(name.encode()) * nodes // SLOTS for name in names)
    return max(on.values()) * nodes / len(names)


def spread(count: int, nodes: int) -> list[str]:
    """Tags named so that each node has equally many: the first number for each whose
    slot is on the wanted node."""
    names: list[str] = []
    for part in range(count):
        number = 0
        while (
            key_slot(f"rpx:{part}:{number}".encode()) * nodes // SLOTS != part % nodes
        ):
            number += 1
        names.append(f"rpx:{part}:{number}")
    return names
