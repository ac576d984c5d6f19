"""What telemetry costs the hot path: CPU per request of gateways that keep books, in
times one that keeps none. All are there at once and take turns, and each round has a
ratio of its own: so the machine's good and bad minutes fall out."""

import statistics
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import measure
from bench.servers import Server, direct, gateway

ROUNDS = 6
UNTOLD = "bench.untold"
NO_BODIES = {"PROXY_MAX_CAPTURE_BYTES": "0"}


@dataclass(frozen=True, slots=True)
class Cost:
    """Ratios: the events alone, and with captured bodies."""

    events: float
    bodies: float


async def cost(folder: Path) -> Cost:
    """For JSON requests."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(direct(_place(folder, "upstream")))

        async def started(
            name: str, module: str | None, settings: dict[str, str]
        ) -> Server:
            place = _place(folder, name)
            made = gateway(place, upstream, module=module, settings=settings)
            return await stack.enter_async_context(made)

        servers = (
            await started("untold", UNTOLD, NO_BODIES),
            await started("events", None, NO_BODIES),
            await started("bodies", None, {}),
        )
        rounds = [await _round(servers, number) for number in range(ROUNDS)]
    return Cost(
        events=statistics.median(told / untold for untold, told, _ in rounds),
        bodies=statistics.median(told / untold for untold, _, told in rounds),
    )


async def _round(servers: tuple[Server, ...], number: int) -> list[float]:
    """CPU milliseconds per request of each; who is first changes."""
    turn = number % len(servers)
    spent = {}
    for server in servers[turn:] + servers[:turn]:
        taken = await measure.sample(server, measure.BUSY)
        spent[server.port] = taken.costs()["cpu"]
    return [spent[server.port] for server in servers]


def _place(folder: Path, name: str) -> Path:
    place = folder / f"telemetry-{name}"
    place.mkdir()
    return place
