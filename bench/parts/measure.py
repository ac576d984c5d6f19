"""Runs the measurements interleaved: every server is measured in each round, so that
other load on the machine affects all of them alike."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.parts import load, wire
from bench.parts.cpu import Usage
from bench.parts.load import Load, Tally
from bench.parts.servers import Server

BUSY = load.Load(connections=32, seconds=1.5)
ALONE = load.Load(connections=1, seconds=1.0, warm_s=0.2)
STREAMS = load.Load(connections=32, seconds=1.5, streamed=True)
PACED = load.Load(
    connections=200,
    seconds=1.5,
    streamed=True,
    paced=True,
    stagger_s=wire.EVENTS * wire.GAP_S,
)
ROUNDS = 5

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Sample:
    """One load on one server."""

    tally: Tally
    before: Usage
    after: Usage

    @property
    def seconds(self) -> float:
        return self.after.at - self.before.at

    def spent(self, read: Callable[[Usage], float]) -> float:
        """CPU seconds of a party."""
        return read(self.after) - read(self.before)

    def busy(self) -> Figures:
        """Shares of a core: the server, the load side, and other processes of the
        machine."""
        server = self.spent(lambda u: u.server)
        valkey_and_load = self.spent(lambda u: u.load_side)
        machine = self.spent(lambda u: u.machine)
        return {
            "server busy": server / self.seconds,
            "load busy": valkey_and_load / self.seconds,
            "others busy": max(machine - server - valkey_and_load, 0) / self.seconds,
        }

    def costs(self) -> Figures:
        """Requests per second, and CPU milliseconds per answer."""
        count = max(len(self.tally.whole), 1)
        return {
            "rate": count / self.seconds,
            "cpu": self.spent(lambda u: u.server) * 1000 / count,
            "valkey": self.spent(lambda u: u.valkey) * 1000 / count,
            **self.busy(),
        }


async def sample(server: Server, what: Load) -> Sample:
    usages: list[Usage] = []
    await server.tidy()
    parties = server.parties
    tally = await load.run(what, server.port, lambda: usages.append(parties.usage()))
    return Sample(tally, usages[0], usages[1])


def throughput(taken: Sample) -> Figures:
    return taken.costs()


def latency(taken: Sample) -> Figures:
    return {
        "p50": percentile(taken.tally.whole, 50) * 1e6,
        "p99": percentile(taken.tally.whole, 99) * 1e6,
    }


def pacing(taken: Sample) -> Figures:
    """First byte time, and CPU microseconds per event."""
    costs = taken.costs()
    return {
        "p50": percentile(taken.tally.first, 50) * 1e6,
        "p99": percentile(taken.tally.first, 99) * 1e6,
        "chunk": costs["cpu"] * 1000 / wire.EVENTS,
        **taken.busy(),
    }


Plan = Mapping[str, tuple[Load, Callable[[Sample], Figures]]]
PLAN: Plan = {
    "json": (BUSY, throughput),
    "alone": (ALONE, latency),
    "streams": (STREAMS, throughput),
    "paced": (PACED, pacing),
}


async def measure(
    servers: Sequence[Server], plan: Plan = PLAN
) -> dict[str, dict[str, Figures]]:
    """Medians over the rounds: by measurement, then by server."""
    taken: dict[str, dict[str, list[Figures]]] = {
        name: {server.name: [] for server in servers} for name in plan
    }
    for _ in range(ROUNDS):
        for name, (what, read) in plan.items():
            for server in servers:
                figures = read(await sample(server, what))
                taken[name][server.name].append(figures)
    return {
        name: {server: _medians(figures) for server, figures in by_server.items()}
        for name, by_server in taken.items()
    }


def _medians(figures: Sequence[Figures]) -> Figures:
    return {key: statistics.median(f[key] for f in figures) for key in figures[0]}


def percentile(values: Iterable[float], percent: int) -> float:
    """By nearest rank; NaN if there are no values."""
    ranked = sorted(values)
    if not ranked:
        return float("nan")
    return ranked[min(len(ranked) * percent // 100, len(ranked) - 1)]
