"""The gateway under cProfile: `python -m bench.parts.profiled`. BENCH_PROFILE names the
output file."""

import cProfile
import os

from services.gateway.process import run


def main() -> None:
    profile = cProfile.Profile()
    try:
        profile.runcall(run)
    finally:
        profile.dump_stats(os.environ["BENCH_PROFILE"])


if __name__ == "__main__":
    main()
