"""Measures what telemetry costs the hot path: CPU per request of gateways with a
ledger, relative to a gateway without.

All gateways run at the same time and take turns, and each round gives a ratio, so
changes of the machine's speed cancel out. Differences between starts of a process, up
to a tenth, are averaged out by restarting."""

import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.parts import measure
from bench.parts.servers import Server, direct, gateway

STARTS = 4
ROUNDS = 3
NO_BODIES = {"PROXY_MAX_CAPTURE_BYTES": "0"}
# Name, module to run, settings.
GATEWAYS: tuple[tuple[str, str | None, dict[str, str]], ...] = (
    ("untold", "bench.parts.without_ledger", NO_BODIES),
    ("events", None, NO_BODIES),
    ("bodies", None, {}),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Ratios: with events alone, and with captured bodies."""

    events: float
    bodies: float


async def cost(folder: Path) -> Cost:
    """The cost for JSON requests."""
    rounds: list[list[float]] = []
    for start in range(STARTS):
        place = folder / f"telemetry-{start}"
        place.mkdir()
        rounds += await _measured(place)
    return Cost(
        events=statistics.median(told / untold for untold, told, _ in rounds),
        bodies=statistics.median(told / untold for untold, _, told in rounds),
    )


async def _measured(folder: Path) -> list[list[float]]:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(direct(folder))
        servers = []
        for name, module, settings in GATEWAYS:
            place = folder / name
            place.mkdir()
            made = gateway(place, upstream, module=module, settings=settings)
            servers.append(await stack.enter_async_context(made))
        return [await _round(servers, number) for number in range(ROUNDS)]


async def _round(servers: Sequence[Server], number: int) -> list[float]:
    """CPU milliseconds per request of each gateway; the order changes each round."""
    turn = number % len(servers)
    spent = {}
    for server in (*servers[turn:], *servers[:turn]):
        taken = await measure.sample(server, measure.BUSY)
        spent[server.port] = taken.costs()["cpu"]
    return [spent[server.port] for server in servers]
