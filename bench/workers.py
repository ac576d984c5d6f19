"""Measures what a second worker brings.

The machine may have no spare core, so each worker gets the same small share of one by
the kernel's quota (cgroup cpu). Two workers then have twice the time, and the
difference to twice the requests is what workers cost each other.

With a small share, most time is spent waiting, which two workers do at the same time:
the request rate alone would overstate the gain. So CPU per request is compared too, and
the lower of the two gains is reported."""

from pathlib import Path

from bench.parts import measure, quota
from bench.parts.cpu import family
from bench.parts.load import Load
from bench.parts.servers import Server, direct, gateway

SHARE = 0.4  # of a core, for each worker
CONNECTIONS = 32  # for each worker: requests at once share calls to Redis


async def gain(folder: Path) -> float | None:
    """Throughput of two workers / one: 2 at best. None where this process may not set
    quotas."""
    if not quota.allowed():
        return None
    taken = []
    for count in (1, 2):
        place = folder / f"workers-{count}"
        place.mkdir()
        async with (
            direct(place) as upstream,
            gateway(place, upstream, workers=count) as ours,
        ):
            what = Load(count * CONNECTIONS, seconds=3.0, warm_s=1.0)
            with quota.limited(_workers(ours), SHARE):
                taken.append((await measure.sample(ours, what)).costs())
    one, two = taken
    return min(two["rate"] / one["rate"], 2 * one["cpu"] / two["cpu"])


def _workers(server: Server) -> list[int]:
    """The workers without their parent, which only waits."""
    found = [pid for first in server.parties.server for pid in family(first)]
    return sorted({pid for pid in found if not set(family(pid)) - {pid}})
