"""Health check of a container: `python -m libs.cli.process.probe PORT` asks /readyz on
loopback; exit code 0 when ready, else 1 with the reason."""

import sys

from libs.cli.readiness_listener import readiness

if __name__ == "__main__":
    problem = readiness(f"http://127.0.0.1:{sys.argv[1]}")
    print(problem or "ready")
    sys.exit(1 if problem else 0)
