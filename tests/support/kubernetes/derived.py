"""What is derived from the settings and the chart, and committed: the version in
Chart.yaml, the variables in values.schema.json and deploy/kustomize/base."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from libs.common.settings import http_proxies, resources
from libs.common.settings.services import SERVICES
from tests.support.kubernetes.chart import CHART, ROOT, load, parse, render_files

KUSTOMIZE = ROOT / "deploy/kustomize"
BASE = KUSTOMIZE / "base"
GENERATED = (
    "# Rendered from deploy/helm/responses-proxy; do not edit. To render it again:\n"
    "# python -m tests.support.kubernetes\n"
)
GENERATED_ALERTS = (
    "# From deploy/prometheus/rules.yml; do not edit. To write it again:\n"
    "# python -m tests.support.kubernetes\n"
)
EXPRESSION = re.compile(r"(?<=expr: >-\n).*")
SELECTOR = re.compile(r"\b(proxy_[a-z_]+|up)\b(\{)?")
# Whole values are secrets, or contain one.
SECRETS = frozenset(
    {
        *("OPENAI_API_KEY", "OPENAI_API_KEYS", "OPENAI_API_KEY_1"),
        *("PROXY_ADMIN_TOKEN", "PROXY_SECRET_ENCRYPTION_KEY"),
        *("PROXY_ALERT_WEBHOOK_URL", "PROXY_ALERT_WEBHOOK_SECRET"),
        *("PROXY_DATABASE_URL", "SERVICE_DATABASE_URL", "DATABASE_URL"),
        *("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"),
    }
)
# URLs that may contain a password: only without one in `config`.
MAYBE_SECRET = frozenset(
    {
        "PROXY_REDIS_URL",
        *(v for names in http_proxies.VARIABLES.values() for v in names),
    }
)
# Ports, paths and times of the pods depend on these. The chart cannot read a Secret.
READ_BY_CHART = frozenset(
    {
        *("PROXY_HOST", "PROXY_PORT", "PROXY_ROUTER_PORT", "PROXY_HEALTH_PORT"),
        *("PROXY_INGEST_PORT", "PROXY_ROUTER_URL", "PROXY_DATA_DIR"),
        *("PROXY_DRAIN_SECONDS", "PROXY_GATEWAY_WORKERS", "PROXY_JOURNAL_MAX_BYTES"),
        *("PROXY_IN_PROCESS_WORKER", "PROXY_SQLITE_URL"),
    }
)
WITHOUT_PASSWORD = {"not": {"pattern": "@|password="}}


def variables() -> set[str]:
    """Every variable that a service reads."""
    return {
        *(name for model in SERVICES.values() for name in model.variables()),
        *resources.VARIABLES,
        *(name for names in http_proxies.VARIABLES.values() for name in names),
        *("NO_PROXY", "no_proxy"),
    }


def chart_yaml() -> str:
    """Chart.yaml with the version of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (CHART / "Chart.yaml").read_text()
    return re.sub(
        r"^appVersion: .*$",
        f'appVersion: "{project["version"]}"',
        text,
        flags=re.MULTILINE,
    )


def values_schema() -> str:
    """values.schema.json with the variables of the settings."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    plain = {"type": ["string", "number", "boolean"]}
    config = schema["$defs"]["config"]
    config["properties"] = {
        name: {**plain, **WITHOUT_PASSWORD} if name in MAYBE_SECRET else plain
        for name in sorted(variables() - SECRETS)
    }
    secret = "|".join(sorted((SECRETS | MAYBE_SECRET) - {"OPENAI_API_KEY_1"}))
    # Paths of mounted files, each with the value of one variable.
    config["patternProperties"] = {
        f"^({secret}|OPENAI_API_KEY_[0-9]{{1,6}})_FILE$": {
            "type": "string",
            "pattern": "^/",
        }
    }
    schema["$defs"]["secretName"]["anyOf"][0]["enum"] = sorted(
        variables() - READ_BY_CHART
    )
    return json.dumps(schema, indent=1) + "\n"


def alerts() -> str:
    """The alerts of Prometheus, for one namespace: several releases may have the same
    Prometheus. The chart replaces the word NAMESPACE."""
    text = (ROOT / "deploy/prometheus/rules.yml").read_text()
    text = "".join(re.findall(r"^groups:.*", text, re.MULTILINE | re.DOTALL))
    own = 'namespace="NAMESPACE"'

    def select(found: "re.Match[str]") -> str:
        name, selector = found.groups()
        return f"{name}{{{own}}}" if selector is None else f"{name}{{{own},"

    def expression(found: "re.Match[str]") -> str:
        return SELECTOR.sub(select, found[0])

    return GENERATED_ALERTS + EXPRESSION.sub(expression, text)


def kustomize_base() -> dict[Path, str]:
    """The files of the base, by path."""
    values = load(KUSTOMIZE / "values.yaml")
    rendered = render_files(values, name="responses-proxy", namespace="default")
    files: dict[Path, str] = {}
    generators = []
    for name, text in sorted(rendered.items()):
        kept = []
        for document in parse(text) if name.endswith(".yaml") else ():
            if document["kind"] == "ConfigMap":
                generators.append(_generator(document, files))
            else:
                kept.append(_for_kustomize(document))
        if kept:
            files[BASE / name] = GENERATED + yaml.safe_dump_all(kept, sort_keys=False)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [path.name for path in files if path.suffix == ".yaml"],
        "configMapGenerator": generators,
    }
    files[BASE / "kustomization.yaml"] = GENERATED + yaml.safe_dump(
        kustomization, sort_keys=False
    )
    return files


def _generator(config_map: dict[str, Any], files: dict[Path, str]) -> dict[str, Any]:
    """A ConfigMap as a generator: kustomize appends a hash to its name, so that a
    change restarts the pods, and overlays can merge variables into it."""
    name = config_map["metadata"]["name"]
    env = f"{name.removeprefix('responses-proxy-')}.env"
    lines = [f"{key}={value}" for key, value in sorted(config_map["data"].items())]
    files[BASE / env] = GENERATED + "\n".join(lines) + "\n"
    return {"name": name, "envs": [env]}


def _for_kustomize(document: dict[str, Any]) -> dict[str, Any]:
    for metadata in _metadata(document):
        labels = metadata.get("labels", {})
        labels.pop("helm.sh/chart", None)
        if "app.kubernetes.io/managed-by" in labels:
            labels["app.kubernetes.io/managed-by"] = "kustomize"
        annotations = metadata.get("annotations", {})
        for name in ("checksum/config", "checksum/secret"):
            annotations.pop(name, None)
        if not annotations:
            metadata.pop("annotations", None)
    return document


def _metadata(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield document["metadata"]
    template = document.get("spec", {}).get("template")
    if template:
        yield template["metadata"]


def derived() -> dict[Path, str]:
    """Every derived file and what it must contain. The base is rendered from the chart
    as it is: write the others first."""
    return {
        CHART / "Chart.yaml": chart_yaml(),
        CHART / "values.schema.json": values_schema(),
        CHART / "files/alerts.yaml": alerts(),
        **kustomize_base(),
    }
