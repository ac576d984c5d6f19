"""The table of docs/operate.md that says what tells an operator that a part is down."""

import re
from dataclasses import dataclass

from tests.support.processes.processes import ROOT
from tests.support.values.observability import METRIC

PAGE = ROOT / "docs/operate.md"
_LINE = re.compile(r"^(\w+), (.*?)(?: with (.*))?$")
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Line:
    """A log line: of which service, its `action`, and the part that is impaired."""

    service: str
    action: str
    part: str = ""


@dataclass(frozen=True)
class Outage:
    """A row."""

    down: str
    lines: frozenset[Line]
    metrics: frozenset[str]
    alerts: frozenset[str]


def outages() -> dict[str, Outage]:
    """The rows, by what is down."""
    table = PAGE.read_text().partition("\n## When something is down\n")[2]
    table = table.partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    found = [_outage([cell.strip() for cell in row.split("|")[1:-1]]) for row in rows]
    return {outage.down: outage for outage in found}


def _outage(cells: list[str]) -> Outage:
    down, _, _, lines, metrics, alerts = cells
    return Outage(
        down,
        frozenset(line for text in lines.split("; ") for line in _lines(text)),
        frozenset(METRIC.findall(metrics)),
        frozenset(alerts.split(", ")),
    )


def _lines(text: str) -> list[Line]:
    """`router, a or b with part: x or y` are the lines of each action and part."""
    found = _LINE.match(text)
    assert found, text
    service, actions, parts = found.groups()
    named = [part.removeprefix("part: ") for part in _CODE.findall(parts or "``")]
    return [
        Line(service, action, part)
        for action in _CODE.findall(actions)
        for part in named or [""]
    ]
