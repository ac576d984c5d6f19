"""`make attack`: every attack against a running gateway, and the table of them."""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from libs.common import logs
from tests.attack import mixups
from tests.attack.scene import Attack, scene
from tests.support.valkey import running_valkey


async def run(folder: Path, answers: int, seed: int) -> list[Attack]:
    done: list[Attack] = []
    with running_valkey(folder) as valkey:
        async with scene(valkey, folder, seed) as at:
            for attack in mixups.attacks(at, answers):
                began = time.monotonic()
                done.append(await attack)  # type: ignore[misc]
                print(
                    done[-1].row, f"({time.monotonic() - began:.0f} s)", file=sys.stderr
                )
                for b in done[-1].breaches[:12]:
                    print("   ", b, file=sys.stderr)
    return done


def main() -> int:
    parser = argparse.ArgumentParser(prog="make attack")
    parser.add_argument("--answers", type=int, default=8_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logs.configure("attack", "warning")
    with tempfile.TemporaryDirectory() as folder:
        done = asyncio.run(run(Path(folder), options.answers, options.seed))
    return int(any(attack.breaches for attack in done))


if __name__ == "__main__":
    sys.exit(main())
