"""Whether a shipped alert fires, given what processes answer on /metrics."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.support.clients.scrapes import Scraped
from tests.support.processes.debian import program
from tests.support.values.observability import METRIC, alerts, alone

PREFIX = "ResponsesProxy"
# An hour and a half of one scrape a minute. The part breaks after 58 minutes, as far as
# counters show it; gauges have the values of the outage all the time.
BEFORE, AFTER, ALL = 58, 30, 90
AT = "60m"

Scrapes = Mapping[tuple[str, str], Scraped]  # by job and instance


def fires(
    name: str,
    before: Scrapes,
    during: Scrapes,
    folder: Path,
    *,
    grows: tuple[str, ...] = (),
) -> bool:
    """Does the alert fire if the outage lasts? `grows`: gauges of an age, which grow
    with the time."""
    (rule,) = [rule for rule in alerts() if rule["alert"] == f"{PREFIX}{name}"]
    series = [
        {"series": _series(sample, labels, place), "values": values}
        for place, scrape in during.items()
        for (sample, labels), value in scrape.samples.items()
        if sample in METRIC.findall(rule["expr"])
        for values in [_values(sample, labels, value, before.get(place), grows)]
    ]
    file = folder / f"{name}.yml"
    trial = {
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{PREFIX}{name}",'
                'alertstate="firing"}) > 0',
                "eval_time": AT,
                "exp_samples": [],
            }
        ],
    }
    file.write_text(
        yaml.safe_dump({"rule_files": [str(alone(rule, folder))], "tests": [trial]})
    )
    done = subprocess.run(
        [program("promtool", "prometheus"), "test", "rules", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    text = done.stdout + done.stderr
    # It is expected to be silent: promtool says so if it is not.
    assert done.returncode == 0 or re.search(r"got:\s*\S*\s*\{\} [1-9]", text), text
    return done.returncode != 0


def _series(sample: str, labels: Any, place: tuple[str, str]) -> str:
    named = [*labels, ("job", place[0]), ("instance", place[1])]
    return f"{sample}{{{','.join(f'{key}={_quoted(v)}' for key, v in named)}}}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _values(
    sample: str,
    labels: Any,
    value: float,
    before: Scraped | None,
    grows: tuple[str, ...],
) -> str:
    if sample in grows:
        return f"{value}+60x{ALL}"
    if not sample.endswith("_total"):
        return f"{value}x{ALL}"
    known = None if before is None else before.samples.get((sample, labels))
    first = f"_x{BEFORE}" if known is None else f"{known}x{BEFORE}"
    return f"{first} {value}x{AFTER}"
