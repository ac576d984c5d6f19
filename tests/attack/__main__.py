"""`make attack`: runs every attack against a gateway that requires keys, and prints the
table of results. Exits with 1 if an attack succeeded."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from libs.common.runtime import logs
from tests.attack.scene import Attack
from tests.attack.table import attacked, table

SHOWN = 20  # breaches shown per attack


def tell(attack: Attack) -> None:
    end = "NOT HELD" if attack.breaches else "held"
    print(f"{attack.name}: {end}", file=sys.stderr)
    for breach in attack.breaches[:SHOWN]:
        print("   ", breach, file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make attack")
    parser.add_argument("--answers", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logs.configure("attack", "warning")
    with tempfile.TemporaryDirectory() as folder:
        run = attacked(Path(folder), options.answers, options.seed, tell)
        done = asyncio.run(run)
    print(table(done))
    return int(any(attack.breaches for attack in done))


if __name__ == "__main__":
    sys.exit(main())
