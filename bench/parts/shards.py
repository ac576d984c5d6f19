"""Simulates the keys of a stack with several shards: how evenly they are loaded,
compared with one shard. Deterministic.

Each shard has all keys, and sees only its own requests under way. A new session gets a
shard at random, as a balancer's hash gives it, and then, by the rules of
`libs.common.routing.policy`, the key that is least loaded in that shard. Its later
requests use the same shard and key (session affinity)."""

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from libs.common.routing.policy import Question, Standing, by_load

KEYS = 64
REQUESTS = 20_000
RATE_S = 40.0  # arrivals in a second, at random (Poisson)
SECONDS = 15.0  # mean duration, exponential: about ten requests under way for each key
TURNS = 20  # mean number of requests in a session; 1: no sessions
WARM_UP = 4_000  # requests before anything is recorded


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over all arrivals after the warm-up, as multiples of the mean."""

    busiest_shard: float  # its requests under way
    busiest_key: float  # its requests under way, over all shards


Place = tuple[int, int]  # shard and key


@dataclass(slots=True)
class _Stack:
    """Requests under way, by shard and key."""

    shards: int
    busy: list[list[int]] = field(default_factory=list)
    ends: list[tuple[float, Place]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.busy = [[0] * KEYS for _ in range(self.shards)]

    def advance(self, now: float) -> None:
        while self.ends and self.ends[0][0] <= now:
            shard, key = heapq.heappop(self.ends)[1]
            self.busy[shard][key] -= 1

    def least_loaded(self, shard: int, draw: int) -> int:
        standings = [
            Standing(str(key), "a", 1.0, busy, 0)
            for key, busy in enumerate(self.busy[shard])
        ]
        chosen = by_load(standings, Question(0, draw), "weighted_least_connections")
        return int(chosen.resource_id or 0)

    def of_keys(self) -> list[int]:
        return [sum(busy) for busy in zip(*self.busy, strict=True)]


def simulate(shards: int, turns: int = TURNS, seed: int = 1) -> Quality:
    draw = random.Random(seed)  # noqa: S311 - repeatable
    stack, sessions = _Stack(shards), list[Place]()
    now, shard_peaks, key_peaks = 0.0, [], []
    for number in range(REQUESTS):
        now += draw.expovariate(RATE_S)
        stack.advance(now)
        if sessions and draw.random() >= 1 / turns:
            place = draw.choice(sessions)
        else:
            place = _begin(stack, sessions, draw)
        stack.busy[place[0]][place[1]] += 1
        heapq.heappush(stack.ends, (now + draw.expovariate(1 / SECONDS), place))
        if number >= WARM_UP:
            shard_peaks.append(_peak([sum(busy) for busy in stack.busy]))
            key_peaks.append(_peak(stack.of_keys()))
    return Quality(fmean(shard_peaks), fmean(key_peaks))


def _begin(stack: _Stack, sessions: list[Place], draw: random.Random) -> Place:
    """The place of a new session. The number of open sessions is bounded."""
    shard = draw.randrange(stack.shards)
    place = shard, stack.least_loaded(shard, draw.randrange(2**31))
    sessions.append(place)
    if len(sessions) > KEYS * TURNS:
        sessions.pop(draw.randrange(len(sessions)))
    return place


def _peak(loads: Sequence[int]) -> float:
    return max(loads) * len(loads) / max(sum(loads), 1)
