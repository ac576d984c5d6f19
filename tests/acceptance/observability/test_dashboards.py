"""The shipped dashboards have the shape that Grafana reads, and their queries parse.
That every metric exists is tested in tests/acceptance/stack/test_up.py, by a scrape."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.processes.debian import program
from tests.support.processes.processes import ROOT
from tests.support.values.observability import DASHBOARDS, RULES, dashboard, queries

WIDTH = 24
KINDS = {"row", "stat", "table", "timeseries"}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
every = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: str(path.stem))


def test_there_are_four() -> None:
    assert [path.stem for path in DASHBOARDS] == [
        "keys", "ledger", "overview", "tenants",
    ]  # fmt: skip
    assert len({dashboard(path)["uid"] for path in DASHBOARDS}) == len(DASHBOARDS)


@every
def test_it_has_the_shape_of_a_dashboard(path: Path) -> None:
    shown = dashboard(path)
    assert shown["uid"] == f"responses-proxy-{path.stem}"
    assert shown["tags"] == ["responses-proxy"]
    assert shown["schemaVersion"] >= 39
    assert "id" not in shown  # Grafana's own
    source, *variables = shown["templating"]["list"]
    assert (source["name"], source["type"]) == ("datasource", "datasource")
    names = {variable["name"] for variable in variables}
    for variable in variables:
        metric = variable["query"].removeprefix("label_values(").partition(",")[0]
        assert variable["query"] == f"label_values({metric}, {variable['name']})"
    used = {name for q in queries(path) for name in re.findall(r"\$([a-z]+)", q)}
    assert used <= names
    panels = shown["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        _check(panel)
    assert not _overlaps(panels)


def _check(panel: dict[str, Any]) -> None:
    assert panel["type"] in KINDS
    assert panel["title"]
    place = panel["gridPos"]
    assert 0 <= place["x"] < place["x"] + place["w"] <= WIDTH
    if panel["type"] == "row":
        return
    assert panel["datasource"] == DATASOURCE
    assert panel["fieldConfig"]["defaults"]["unit"]
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references) > 0


def _overlaps(panels: list[dict[str, Any]]) -> bool:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    return len(set(cells)) < len(cells)


@every
def test_its_queries_parse(path: Path, tmp_path: Path) -> None:
    promtool = program("promtool", "prometheus")
    exprs = [
        re.sub(r"\$__\w+", "5m", query)
        for query in queries(path)
        if query != "prometheus" and not query.startswith("label_values(")
    ]
    rules = [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(exprs)]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_gives_prometheus_its_rules(tmp_path: Path) -> None:
    promtool = program("promtool", "prometheus")
    for mount in COMPOSE["prometheus"]["volumes"]:
        source, target, mode = mount.split(":")
        assert mode == "ro"
        assert Path(target).parent == Path("/etc/prometheus")
        shutil.copy(ROOT / source, tmp_path / Path(target).name)
    config = tmp_path / "prometheus.yml"
    done = subprocess.run(
        [promtool, "check", "config", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "rules.yml").read_text() == RULES.read_text()
    assert yaml.safe_load(config.read_text())["rule_files"] == ["rules.yml"]


def test_compose_gives_grafana_its_dashboards() -> None:
    volumes = COMPOSE["grafana"]["volumes"]
    mounts = dict(mount.removesuffix(":ro").split(":") for mount in volumes)
    for source in mounts:
        assert (ROOT / source).exists()
    provider = ROOT / "deploy/observability/dashboards.yml"
    (given,) = yaml.safe_load(provider.read_text())["providers"]
    assert mounts["./deploy/grafana"] == given["options"]["path"]
    assert mounts["./deploy/observability/dashboards.yml"].startswith(
        "/etc/grafana/provisioning/dashboards/"
    )
