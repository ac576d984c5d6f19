"""The shipped dashboards, alert rules and runbook."""

import json
import re
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.support.processes.processes import ROOT

DASHBOARDS = sorted((ROOT / "deploy/grafana").glob("*.json"))
RULES = ROOT / "deploy/prometheus/rules.yml"
RUNBOOK = ROOT / "docs/runbook.md"
METRIC = re.compile(r"\b(?:proxy|process)_[a-z0-9_]+")

Rule = dict[str, Any]


def alerts() -> list[Rule]:
    """All alerts of the rules file."""
    rules = yaml.safe_load(RULES.read_text())
    return [rule for group in rules["groups"] for rule in group["rules"]]


def alone(rule: Rule, folder: Path) -> Path:
    """A rules file with one alert: promtool takes ten times as long to evaluate all."""
    file = folder / f"{rule['alert']}.rules.yml"
    groups = [{"name": "alone", "rules": [rule]}]
    file.write_text(yaml.safe_dump({"groups": groups}))
    return file


def dashboard(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def queries(path: Path) -> list[str]:
    """The expressions of a dashboard's panels and variables."""
    shown = dashboard(path)
    targets = [t for panel in shown["panels"] for t in panel.get("targets", ())]
    return [target["expr"] for target in targets] + [
        str(v["query"]) for v in shown["templating"]["list"]
    ]


def named_metrics() -> set[str]:
    """Every metric that a panel or a rule names."""
    texts = [rule["expr"] for rule in alerts()]
    for path in DASHBOARDS:
        texts += queries(path)
    return {name for text in texts for name in METRIC.findall(text)}
