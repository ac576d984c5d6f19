"""Renders the Helm chart with Helm's own engine (helm-python-sdk contains it).

Machines without a build of it skip these tests, except in CI."""

import importlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy/helm/responses-proxy"
SERVICES = ("gateway", "router", "health", "ingest")
# Helm passes the name and the namespace of a release.
NAME, NAMESPACE = "demo", "proxy"
PREFIX = "demo-responses-proxy"

Document = dict[str, Any]
Values = Mapping[str, Any]


class Refused(Exception):
    """Helm refused the values. The message is Helm's, with its line breaks."""


def helm() -> Any:
    """Helm's engine. Without it the test is skipped, or fails in CI."""
    if os.environ.get("CI"):
        return importlib.import_module("helm_python")
    return pytest.importorskip("helm_python")


def render_files(
    values: Values, name: str = NAME, namespace: str = NAMESPACE
) -> dict[str, str]:
    """The text of each template, by its file name. Raises `Refused`."""
    sdk = helm()
    with sdk.Chart.load(CHART) as chart:
        try:
            # `render` alone skips the schema, which `helm template` checks first.
            chart.validate_schema(dict(values))
            rendered = chart.render(dict(values), name=name, namespace=namespace)
        except sdk.HelmError as error:
            raise Refused(str(error)) from None
    return {Path(path).name: text for path, text in rendered.items()}


def render(values: Values, **release: str) -> list[Document]:
    """All documents that the values lead to. Raises `Refused`."""
    files = render_files(values, **release)
    return [
        document
        for path, text in sorted(files.items())
        if path.endswith(".yaml")
        for document in parse(text)
    ]


def parse(text: str) -> list[Document]:
    """The documents of a YAML text."""
    # libyaml is ten times as fast, and every wheel of PyYAML has it.
    loaded = yaml.load_all(text, yaml.CSafeLoader)
    return [document for document in loaded if document]


def of_kind(documents: list[Document], *kinds: str) -> dict[str, Document]:
    """The documents of some kinds, by name."""
    return {d["metadata"]["name"]: d for d in documents if d["kind"] in kinds}


def pod_specs(documents: list[Document]) -> Iterator[tuple[str, Document]]:
    """The pod template of each workload, by the workload's name."""
    for document in documents:
        template = document.get("spec", {}).get("template")
        if document["kind"] in {"Deployment", "StatefulSet"}:
            yield document["metadata"]["name"], template


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())
