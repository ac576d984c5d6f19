"""Each alert fires when it should and not otherwise, and has a page of the runbook."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.acceptance.kubernetes.conftest import rendered
from tests.support.kubernetes.chart import of_kind
from tests.support.processes.debian import program
from tests.support.processes.processes import ROOT
from tests.support.values.observability import RULES, RUNBOOK, alerts, alone

# Of each alert: series with which it fires after an hour, and the same without.
# `a+bxc`: n values, from a, each b more (promtool test rules).
CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "NoGateway": ({"up": "1x90"}, {"proxy_requests_in_flight": "0x90"}),
    "ServiceDown": ({'up{job="router"}': "0x90"}, {'up{job="router"}': "1x90"}),
    "GatewayDied": (
        {"proxy_recovered_requests_total": "0x58 3x30"},
        {
            "proxy_router_reaped_leases_total": "3x90",
            "proxy_recovered_requests_total": "3x90",
        },
    ),
    "RequestsFail": (
        {'proxy_requests_total{outcome="failed"}': "0+10x90",
         'proxy_requests_total{outcome="completed"}': "0+90x90"},
        {'proxy_requests_total{outcome="failed"}': "0+1x90",
         'proxy_requests_total{outcome="completed"}': "0+90x90"},
    ),
    "AnswersBreakOff": (
        {'proxy_interruptions_total{cause="upstream_broke_off"}': "0+5x90",
         "proxy_requests_total": "0+100x90"},
        {'proxy_interruptions_total{cause="gateway_restarts"}': "0+5x90",
         "proxy_requests_total": "0+100x90"},
    ),
    "NoCapacity": (
        {'proxy_refused_total{code="no_capacity"}': "0+1x90"},
        {'proxy_refused_total{code="invalid_proxy_key"}': "0+1x90"},
    ),
    "FirstTokenSlow": (
        {'proxy_time_to_first_token_seconds_bucket{le="7.5"}': "0+90x90",
         'proxy_time_to_first_token_seconds_bucket{le="10"}': "0+100x90",
         'proxy_time_to_first_token_seconds_bucket{le="+Inf"}': "0+100x90"},
        {'proxy_time_to_first_token_seconds_bucket{le="7.5"}': "0+99x90",
         'proxy_time_to_first_token_seconds_bucket{le="+Inf"}': "0+100x90"},
    ),
    "OverheadHigh": (
        {'proxy_overhead_seconds_bucket{le="0.05"}': "0+90x90",
         'proxy_overhead_seconds_bucket{le="0.2"}': "0+100x90",
         'proxy_overhead_seconds_bucket{le="+Inf"}': "0+100x90"},
        {'proxy_overhead_seconds_bucket{le="0.05"}': "0+100x90",
         'proxy_overhead_seconds_bucket{le="+Inf"}': "0+100x90"},
    ),
    "NoResource": (
        {'proxy_resource_available{resource="a"}': "0x90",
         'proxy_resource_available{resource="b"}': "0x90"},
        {'proxy_resource_available{resource="a"}': "0x90",
         'proxy_resource_available{resource="b"}': "1x90"},
    ),
    "ResourceUnavailable": (
        {'proxy_resource_available{resource="a"}': "0x90"},
        {'proxy_resource_available{resource="a"}': "0x55 1x40"},
    ),
    "FailoversFrequent": (
        {"proxy_failovers_total": "0+30x90", "proxy_requests_total": "0+100x90"},
        {"proxy_failovers_total": "0+10x90", "proxy_requests_total": "0+100x90"},
    ),
    "AccountLimitNear": (
        {'proxy_account_limit_remaining{account="a",limit="tokens"}': "4x90",
         'proxy_account_limit{account="a",limit="tokens"}': "100x90"},
        {'proxy_account_limit_remaining{account="a",limit="tokens"}': "6x90",
         'proxy_account_limit{account="a",limit="tokens"}': "100x90"},
    ),
    "HealthChecksStopped": (
        {'proxy_degraded{part="health"}': "1x90"},
        {'proxy_degraded{part="ledger"}': "1x90"},
    ),
    "RouterUnreachable": (
        {'proxy_degraded{part="router"}': "1x90"},
        {'proxy_degraded{part="router"}': "0x90"},
    ),
    "RedisDown": (
        {'proxy_redis_up{job="gateway",instance="a"}': "0x90",
         'proxy_redis_up{job="gateway",instance="b"}': "1x90"},
        {'proxy_redis_up{job="gateway"}': "1x90"},
    ),
    "DatabaseDown": (
        {'proxy_sql_up{job="ingest"}': "0x90"}, {'proxy_sql_up{job="ingest"}': "1x90"},
    ),
    "JournalInMemory": (
        {'proxy_degraded{part="journal"}': "1x90"},
        {'proxy_degraded{part="journal"}': "0x90"},
    ),
    "LedgerUnbalanced": (
        {"proxy_ledger_balanced": "0x90"}, {"proxy_ledger_balanced": "1x90"},
    ),
    "EventsLost": (
        {"proxy_journal_lost_events": "7x90"}, {"proxy_journal_lost_events": "0x90"},
    ),
    "JournalCorrupt": (
        {"proxy_journal_corrupt_records": "1x90"},
        {"proxy_journal_corrupt_records": "0x90"},
    ),
    "GatewayNotRecovered": (
        {'proxy_gateways{state="silent"}': "1x90"},
        {'proxy_gateways{state="closed"}': "1x90"},
    ),
    "NotStored": (
        {"proxy_queue_oldest_seconds": "0+60x90"},
        {"proxy_queue_oldest_seconds": "1x90"},
    ),
    "QueueLong": ({"proxy_queue_depth": "20000x90"}, {"proxy_queue_depth": "9x90"}),
    "IngestFails": (
        {'proxy_ingest_failures_total{what="store"}': "0+1x90"},
        {'proxy_ingest_failures_total{what="store"}': "7x90"},
    ),
    "DeadLetters": (
        {"proxy_ingest_dead_letters_total": "0x58 1x30"},
        {"proxy_ingest_dead_letters_total": "1x90"},
    ),
    "CaptureDropped": (
        {"proxy_capture_dropped_total": "0+1x90"},
        {"proxy_capture_dropped_total": "5x90"},
    ),
}  # fmt: skip
PREFIX = "ResponsesProxy"


def test_each_alert_is_tried() -> None:
    assert {f"{PREFIX}{name}" for name in CASES} == {rule["alert"] for rule in alerts()}


def test_each_alert_fires_when_it_should(tmp_path: Path) -> None:
    """One run of promtool for all."""
    promtool = program("promtool", "prometheus")
    files = []
    for rule in alerts():
        name = rule["alert"].removeprefix(PREFIX)
        fires, silent = CASES[name]
        tests = [_trial(name, fires, fires=True), _trial(name, silent, fires=False)]
        files.append(tmp_path / f"{name}.yml")
        trials = {"rule_files": [str(alone(rule, tmp_path))], "tests": tests}
        files[-1].write_text(yaml.safe_dump(trials))
    done = subprocess.run(
        [promtool, "test", "rules", *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _trial(name: str, series: dict[str, str], *, fires: bool) -> dict[str, Any]:
    query = f'count(ALERTS{{alertname="{PREFIX}{name}",alertstate="firing"}}) > 0'
    return {
        "name": f"{name} {'fires' if fires else 'is silent'}",
        "interval": "1m",
        "input_series": [
            {"series": name, "values": values} for name, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": query if fires else f"absent({query})",
                "eval_time": "60m",
                "exp_samples": [{"labels": "{}", "value": 1}],
            }
        ],
    }


def test_promtool_accepts_the_rules_of_compose_and_of_the_chart(tmp_path: Path) -> None:
    promtool = program("promtool", "prometheus")
    (rendered_rules,) = of_kind(rendered("everything"), "PrometheusRule").values()
    chart = tmp_path / "chart.yml"
    chart.write_text(yaml.safe_dump(rendered_rules["spec"]))
    for path in (RULES, chart):
        done = subprocess.run(
            [promtool, "check", "rules", "--lint=all", "--lint-fatal", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_chart_has_the_same_alerts_for_its_namespace() -> None:
    (rules,) = of_kind(rendered("everything"), "PrometheusRule").values()
    found = [rule for group in rules["spec"]["groups"] for rule in group["rules"]]
    assert [rule["alert"] for rule in found] == [rule["alert"] for rule in alerts()]
    for ours, theirs in zip(found, alerts(), strict=True):
        own = re.sub(r'namespace="[^"]+",?', "", ours["expr"]).replace("{}", "")
        assert own == theirs["expr"]
        assert "NAMESPACE" not in ours["expr"]
        assert "namespace=" in ours["expr"]
        assert ours["annotations"] == theirs["annotations"]


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule["alert"]))
def test_each_alert_has_a_page_of_the_runbook(rule: dict[str, Any]) -> None:
    headings = re.findall(r"^### (\S+)$", RUNBOOK.read_text(), re.MULTILINE)
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert ROOT / page == RUNBOOK
    assert headings.count(rule["alert"]) == 1
    assert anchor == rule["alert"].lower()
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"]["summary"].endswith(".")


def test_the_runbook_has_no_other_page() -> None:
    headings = re.findall(r"^### (\S+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert set(headings) == {rule["alert"] for rule in alerts()}
