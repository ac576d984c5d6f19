"""Container health check: `python -m libs.cli.process.probe PORT` requests /readyz on
loopback. Exits with 0 if ready, else with 1 and prints the reason."""

import sys

from libs.cli.readiness_listener import readiness

if __name__ == "__main__":
    problem = readiness(f"http://127.0.0.1:{sys.argv[1]}")
    print(problem or "ready")
    sys.exit(1 if problem else 0)
