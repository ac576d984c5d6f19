"""`python -m bench.budgets`: 50 agents spend the budget of one key for a minute over
three gateways, by HTTP, SSE and sockets, without and with reservations. Redis is killed
and emptied in the middle. The short version is the test `test_budgets.py`."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from libs.common.runtime import logs
from tests.support.processes.havoc import Scale, scene
from tests.support.processes.spenders import Plan, Result, spent_of, table

SCALE = Scale(
    answers=0, rounds=0, at_once=0, postgres_away_s=0, between_s=(0, 0), gateways=3
)


async def run(agents: int, seconds: float, folder: Path) -> list[Result]:
    async with scene(SCALE, folder) as at_scene:
        return [
            await spent_of(at_scene, Plan(agents, seconds, reserve=reserve))
            for reserve in (False, True)
        ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.budgets")
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    logs.configure("budgets", "warning")
    with tempfile.TemporaryDirectory(prefix="rpx-budgets-") as folder:
        results = asyncio.run(run(options.agents, options.seconds, Path(folder)))
    faults = [fault for result in results for fault in result.faults()]
    sys.stdout.write("\n".join([table(results), *faults]) + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
