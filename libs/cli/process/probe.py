"""Container health check: `python -m libs.cli.process.probe SERVICE|PORT` requests
/readyz on loopback. Exits with 0 if ready, else with 1 and prints the reason.

It runs every few seconds, so it reads no settings models, whose imports take long."""

import os
import sys
from collections.abc import Mapping

from libs.cli.readiness import readiness

# Service -> the variable of its port, and the default.
PORTS = {
    "gateway": ("PROXY_PORT", "8000"),
    "router": ("PROXY_ROUTER_PORT", "8001"),
    "health": ("PROXY_HEALTH_PORT", "8002"),
    "ingest": ("PROXY_INGEST_PORT", "8003"),
}


def port(service: str, environ: Mapping[str, str]) -> str:
    """The port of `service`, or `service` itself if it is not one's name."""
    if service not in PORTS:
        return service
    variable, default = PORTS[service]
    return environ.get(variable) or default


if __name__ == "__main__":
    problem = readiness(f"http://127.0.0.1:{port(sys.argv[1], os.environ)}")
    print(problem or "ready")
    sys.exit(1 if problem else 0)
