"""`python -m bench.chaos`: kills every process in turn under load until enough complete
answers have arrived, then compares clients, ledger and SQL. The short version is the
test `test_closed_ledger.py`."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from libs.common.runtime import logs
from tests.support.processes.havoc import Outcome, Scale, scene, wreak

LONGEST_S = 900  # a longer run is treated as hanging


def render(outcome: Outcome) -> str:
    """The result as a Markdown table."""
    heard, ledger = outcome.heard, outcome.ledger
    ends = outcome.ends()
    rows = {
        "kills": ", ".join(f"{n} x {what}" for what, n in outcome.kills.items()),
        "seconds": f"{outcome.seconds:.0f}",
        "complete answers": str(len(heard.answered)),
        "broken, refused or unanswered": str(heard.failed.total()),
        "rows of `requests`": ", ".join(
            f"{n} {end}" for end, n in sorted(ends.items())
        ),
        "answered but not stored, or stored twice": "see below"
        if outcome.faults()
        else "0",
        "complete answers without a decision": str(outcome.undecided),
        "ledger at the end": ", ".join(
            f"{name} {ledger[name]}"
            for name in ("accepted", "stored", "pending", "in_flight", "dead_lettered")
        ),
        "balanced": f"{ledger['balanced']}; checked {outcome.ledgers} times, "
        f"{len(outcome.alarms)} alarms",
    }
    lines = ["| closed ledger | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join([*lines, *outcome.faults()])


async def run(scale: Scale, folder: Path) -> Outcome:
    async with asyncio.timeout(LONGEST_S), scene(scale, folder) as at_scene:
        return await wreak(at_scene, scale)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos")
    parser.add_argument("--answers", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logs.configure("chaos", "warning")
    scale = Scale(
        answers=options.answers,
        rounds=options.rounds,
        at_once=64,
        postgres_away_s=20.0,
        between_s=(0.5, 3.0),
        settled_within_s=120.0,
        seed=options.seed,
    )
    with tempfile.TemporaryDirectory(prefix="rpx-chaos-") as folder:
        outcome = asyncio.run(run(scale, Path(folder)))
    sys.stdout.write(render(outcome) + "\n")
    return 1 if outcome.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
