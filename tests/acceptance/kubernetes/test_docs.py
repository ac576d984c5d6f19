"""The values and commands of docs/kubernetes.md work as they stand, as far as they need
no cluster."""

import re
import shlex
from itertools import pairwise
from typing import Any

import pytest

from tests.support.kubernetes.chart import CHART, ROOT, helm, of_kind, parse, render

PAGE = (ROOT / "docs/kubernetes.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line
    for language, block in BLOCKS
    if language == "sh"
    for line in block.replace("\\\n", " ").splitlines()
]
# What runs them: the others need a cluster, a registry or Docker.
WITHOUT_CLUSTER = ("helm ",)
ELSEWHERE = ("docker build", "docker push", "kubectl ", "cp ")


def values_on_the_page() -> list[dict[str, Any]]:
    """YAML blocks that are values of the chart, whole or in part."""
    known = set(parse((CHART / "values.yaml").read_text())[0])
    blocks = [parse(text)[0] for language, text in BLOCKS if language == "yaml"]
    return [values for values in blocks if set(values) <= known]


def given(command: str) -> dict[str, Any]:
    """The values that the options of a helm command lead to."""
    values: dict[str, Any] = {}
    words = shlex.split(command.replace("$(openssl rand -hex 16)", "0123456789abcdef"))
    options = list(pairwise(words))
    for option, _ in options:
        if option in {"-f", "--values"}:
            values |= values_on_the_page()[0]
    for option, assignments in options:
        for assignment in assignments.split(",") if option == "--set" else ():
            path, _, value = assignment.partition("=")
            put(values, path.split("."), {"true": True}.get(value, value))
        if option == "--set-file":
            put(values, assignments.partition("=")[0].split("."), "of a file")
    return values


def put(values: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        values = values.setdefault(name, {})
    values[path[-1]] = value


def test_every_command_is_of_a_known_kind() -> None:
    known = (*WITHOUT_CLUSTER, *ELSEWHERE)
    assert [c for c in COMMANDS if c and not c.startswith(known)] == []


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("helm ")])
def test_helm_accepts_the_commands(command: str) -> None:
    assert str(CHART.relative_to(ROOT)) in command
    assert render(given(command))


def test_the_stages_of_an_upgrade_replace_one_service_after_the_other() -> None:
    stages = [c for c in COMMANDS if "ingest.image.tag" in c or "image.tag=NEW" in c]
    images = [
        {
            name.rpartition("-")[2]: w["spec"]["template"]["spec"]["containers"][0][
                "image"
            ].rpartition(":")[2]
            for name, w in of_kind(render(given(stage)), "Deployment").items()
        }
        for stage in stages
    ]
    new = [{name for name, tag in stage.items() if tag == "NEW"} for stage in images]
    assert new == [
        {"ingest"},
        {"ingest", "router"},
        {"ingest", "router", "gateway", "health"},
    ]


def test_the_values_on_the_page_are_accepted() -> None:
    pages = values_on_the_page()
    assert len(pages) == 2
    for values in pages:
        assert render({"existingSecret": "proxy-secrets", **values})


def test_the_chart_can_be_packaged(tmp_path: Any) -> None:
    sdk = helm()
    archive = sdk.package(CHART, destination=tmp_path)
    with sdk.Chart.load(archive) as chart:
        assert chart.schema is not None
        assert "NOTES.txt" in str([t["name"] for t in chart.templates])
        assert chart.files == [] or all(".orig" not in f["name"] for f in chart.files)


def test_the_notes_warn_of_what_is_for_trials_only() -> None:
    notes = notes_of({
        "redis": {"bundled": {"enabled": True}},
        "database": {"bundled": {"enabled": True, "password": "correct-horse"}},
        "networkPolicy": {"enabled": False},
        "secrets": {"OPENAI_API_KEY": "sk-1234567890"},
        "gateway": {"service": {"type": "LoadBalancer"}},
    })  # fmt: skip
    assert "WARNING: this release is a trial" in notes
    assert "every pod of the cluster can read and write it" in notes
    assert "no backup" in notes
    assert "PROXY_REQUIRE_KEYS=true" in notes
    assert "correct-horse" not in notes
    assert "sk-1234567890" not in notes


@pytest.mark.parametrize(("required", "warned"), [(False, True), (True, False)])
def test_the_notes_warn_of_a_published_gateway_without_keys(
    required: bool, warned: bool
) -> None:
    notes = notes_of({
        "existingSecret": "s",
        "config": {"PROXY_REQUIRE_KEYS": required},
        "gateway": {"service": {"type": "LoadBalancer"}},
    })  # fmt: skip
    assert ("everyone who reaches the gateway" in notes) is warned


def test_the_notes_of_a_production_release_do_not_warn() -> None:
    assert "WARNING" not in notes_of({"existingSecret": "s"})


def notes_of(values: dict[str, Any]) -> str:
    with helm().Chart.load(CHART) as chart:
        rendered: dict[str, str] = chart.render(values, name="demo", namespace="proxy")
    (notes,) = (t for path, t in rendered.items() if path.endswith("NOTES.txt"))
    return notes
