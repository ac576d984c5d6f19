"""What telemetry costs the hot path: CPU per request of gateways that keep books, in
times one that keeps none. All are there at once and take turns, and each round has a
ratio of its own: so the machine's good and bad minutes fall out. What falls out only
by starting anew is a process's luck with its memory, which is worth a tenth."""

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
# Name, module in its place, settings.
GATEWAYS: tuple[tuple[str, str | None, dict[str, str]], ...] = (
    ("untold", "bench.parts.without_ledger", NO_BODIES),
    ("events", None, NO_BODIES),
    ("bodies", None, {}),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Ratios: the events alone, and with captured bodies."""

    events: float
    bodies: float


async def cost(folder: Path) -> Cost:
    """For JSON requests."""
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
    """CPU milliseconds per request of each; who is first changes."""
    turn = number % len(servers)
    spent = {}
    for server in (*servers[turn:], *servers[:turn]):
        taken = await measure.sample(server, measure.BUSY)
        spent[server.port] = taken.costs()["cpu"]
    return [spent[server.port] for server in servers]
