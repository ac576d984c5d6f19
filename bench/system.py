"""Measures what the whole system costs for each request, by process:
`python -m bench.system [CHECKOUT]`.

`responses-proxy up` starts it as for users: with SQLite, then with Postgres. JSON
requests and streams come at a fixed rate. With CHECKOUT, another checkout with its own
`.venv`, a second system runs beside it, and both take turns in every round. Then one
connection sends requests one after the other, through each system and directly."""

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench.parts import load, measure, stack
from bench.parts.load import Load
from bench.parts.servers import Server, direct
from bench.parts.stack import NAMES, System
from libs.common.runtime import logs
from tests.support.databases.postgres import standing_postgres

KEY = "sk-any"  # `up` requires no proxy key
CONNECTIONS = 20
DATABASES = ("SQLite", "Postgres")
# As in production, where commits are durable. Without autovacuum, which runs once a
# minute and would double what Postgres costs in a single round.
POSTGRES_SETTINGS = (
    "autovacuum=off",
    "shared_buffers=64MB",
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "log_min_messages=fatal",
)
_CELL = 11
Costs = dict[str, float]  # by process, in CPU-ms


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    rate: float  # JSON requests a second; of streams half as many
    seconds: float
    rounds: int

    def loads(self) -> dict[str, Load]:
        return {
            "JSON": self._load(self.rate, streamed=False),
            "streams": self._load(self.rate / 2, streamed=True),
        }

    def _load(self, rate: float, *, streamed: bool) -> Load:
        return Load(
            CONNECTIONS,
            self.seconds,
            warm_s=1.0,
            unique=True,
            streamed=streamed,
            stagger_s=CONNECTIONS / rate,
            key=KEY,
            rate=rate,
        )


@dataclass(slots=True)
class Found:
    """The measurements of one database, by name of the system."""

    costs: dict[str, dict[str, list[Costs]]] = field(default_factory=dict)  # by load
    idle: dict[str, Costs] = field(default_factory=dict)  # percent of a core
    latency: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


async def compare(folder: Path, other: Path | None, scale: Scale) -> str:
    tables = []
    for database in DATABASES:
        place = folder / database
        place.mkdir()
        found = await _measure(place, database, other, scale)
        tables.append(rendered(database, found))
    return "\n\n".join(tables)


async def _measure(
    folder: Path, database: str, other: Path | None, scale: Scale
) -> Found:
    checkouts: dict[str, Path | None] = {"this": None}
    if other is not None:
        checkouts = {"other": other, "this": None}
    async with AsyncExitStack() as opened:
        servers = opened.enter_context(ExitStack())
        upstream = await opened.enter_async_context(direct(folder, core=None))
        systems = []
        for name, checkout in checkouts.items():
            own = None
            if database == "Postgres":
                own = servers.enter_context(standing_postgres(POSTGRES_SETTINGS))
            made = stack.started(folder / name, name, upstream, own, checkout)
            systems.append(await opened.enter_async_context(made))
        found = Found()
        await _idle(systems, scale, found)
        for number in range(scale.rounds):
            turn = systems if number % 2 else systems[::-1]
            await _round(turn, upstream, scale, found)
        return found


async def _idle(systems: Sequence[System], scale: Scale, found: Found) -> None:
    await asyncio.sleep(3.0)  # what starts once
    before = {each.name: each.used_s() for each in systems}
    await asyncio.sleep(scale.seconds)
    for each in systems:
        used = _difference(before[each.name], each.used_s())
        found.idle[each.name] = {n: s / scale.seconds * 100 for n, s in used.items()}


async def _round(
    systems: Sequence[System], upstream: Server, scale: Scale, found: Found
) -> None:
    for name, what in scale.loads().items():
        for each in systems:
            costs = await _costs(each, what)
            by_system = found.costs.setdefault(name, {})
            by_system.setdefault(each.name, []).append(costs)
    alone = Load(1, scale.seconds / 2, warm_s=0.5, unique=True, key=KEY)
    for title, port in (
        ("direct", upstream.port),
        *((s.name, s.port) for s in systems),
    ):
        tally = await load.run(alone, port, lambda: None)
        spread = [measure.percentile(tally.whole, n) * 1000 for n in (50, 99)]
        found.latency.setdefault(title, []).append((spread[0], spread[1]))


async def _costs(system: System, what: Load) -> Costs:
    used: list[dict[str, float]] = []
    tally = await load.run(what, system.port, lambda: used.append(system.used_s()))
    count = len(tally.whole)
    return {n: s * 1000 / count for n, s in _difference(used[0], used[1]).items()}


def _difference(before: Costs, after: Costs) -> Costs:
    return {name: max(after[name] - before[name], 0.0) for name in after}


def rendered(database: str, found: Found) -> str:
    """One table: a row for each process, a column for each system and load."""
    systems = list(found.idle)
    columns: list[tuple[str, Costs]] = []
    for name, by_system in found.costs.items():
        columns += [(f"{name} {s}", _medians(by_system[s])) for s in systems]
    columns += [(f"idle {s}", found.idle[s]) for s in systems]
    heads = "".join(f"{title:>{_CELL + 3}}" for title, _ in columns)
    lines = [f"{database}; CPU-ms for each request; idle: percent of a core",
             f"{'':<14}{heads}"]  # fmt: skip
    for name in NAMES:
        cells = "".join(f"{costs[name]:>{_CELL + 3}.3f}" for _, costs in columns)
        lines.append(f"{name:<14}{cells}")
    sums = "".join(f"{sum(c.values()):>{_CELL + 3}.3f}" for _, c in columns)
    lines.append(f"{'all':<14}{sums}")
    return "\n".join([*lines, *_ratios(found), *_latencies(found)])


def _ratios(found: Found) -> list[str]:
    """Medians of the rounds' ratios: both systems ran in the same seconds."""
    lines = []
    for name, by_system in found.costs.items():
        if "other" not in by_system:
            continue
        pairs = list(zip(by_system["this"], by_system["other"], strict=True))
        whole = [sum(a.values()) / sum(b.values()) for a, b in pairs]
        parts = [
            f"{part} {statistics.median(ratios):.2f}"
            for part in NAMES
            if (ratios := [a[part] / b[part] for a, b in pairs if b[part]])
        ]
        lines.append(
            f"this ÷ other, {name}: {statistics.median(whole):.3f} "
            f"({min(whole):.2f} to {max(whole):.2f}); {', '.join(parts)}"
        )
    return lines


def _latencies(found: Found) -> list[str]:
    lines = []
    base = _middle(found.latency["direct"])
    for name, spreads in found.latency.items():
        p50, p99 = _middle(spreads)
        added = "" if name == "direct" else (
            f", added {p50 - base[0]:.2f} and {p99 - base[1]:.2f}"
        )  # fmt: skip
        lines.append(f"one connection, ms, {name}: p50 {p50:.2f}, p99 {p99:.2f}{added}")
    return lines


def _middle(spreads: Sequence[tuple[float, float]]) -> tuple[float, float]:
    p50s, p99s = zip(*spreads, strict=True)
    return statistics.median(p50s), statistics.median(p99s)


def _medians(costs: Sequence[Costs]) -> Costs:
    return {name: statistics.median(c[name] for c in costs) for name in NAMES}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.system")
    parser.add_argument("checkout", type=Path, nargs="?", help="to compare with")
    parser.add_argument("--rate", type=float, default=300.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    logs.configure("bench", "error")
    scale = Scale(chosen.rate, chosen.seconds, chosen.rounds)
    other = chosen.checkout and chosen.checkout.resolve()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        print(uvloop.run(compare(Path(folder), other, scale)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
