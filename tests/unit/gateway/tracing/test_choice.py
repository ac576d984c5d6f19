"""Without traces a gateway has what it would have if there were none."""

import json
import subprocess
import sys

from libs.common.settings.tracing import TracingSettings
from services.gateway.proxy.in_flight import InFlight
from services.gateway.tracing.choice import in_flight_class

IMPORTED = """
import json, sys
import services.gateway.app
print(json.dumps(sorted(sys.modules)))
"""


def test_off_it_is_the_plain_class() -> None:
    assert in_flight_class(TracingSettings.read({}), "gw") is InFlight


def test_off_the_exporter_is_not_imported() -> None:
    """(redis-py imports OpenTelemetry's API if it finds it.)"""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True
    )
    modules = json.loads(done.stdout)
    exporter = "opentelemetry.exporter", "services.gateway.tracing.spans"
    assert [name for name in modules if name.startswith(exporter)] == []
    assert "services.gateway.app" in modules
