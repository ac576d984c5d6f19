"""Every variable of the README reaches each service, from each place where values may
be given."""

import re
from typing import Any

import pytest

from libs.cli.operations.settings_check import setting_problems
from libs.common.settings.services import UpSettings
from tests.acceptance.kubernetes.conftest import VALUES
from tests.support.kubernetes.chart import (
    ROOT,
    SERVICES,
    load,
    of_kind,
    render,
)
from tests.support.kubernetes.derived import (
    MAYBE_SECRET,
    READ_BY_CHART,
    SECRETS,
    variables,
)
from tests.support.kubernetes.pods import environments

# A further key, and what the chart refuses (test_values.py says why).
NUMBERED = "OPENAI_API_KEY_7"
NOT_HERE = {"PROXY_SQLITE_URL"}
MUST_FIT: dict[str, str] = {  # values that the chart itself reads
    "PROXY_PORT": "9000",
    "PROXY_ROUTER_PORT": "9001",
    "PROXY_HEALTH_PORT": "9002",
    "PROXY_INGEST_PORT": "9003",
    "PROXY_DRAIN_SECONDS": "33",
    "PROXY_DATA_DIR": "/var/lib/proxy",
    "PROXY_IN_PROCESS_WORKER": "false",
    "PROXY_JOURNAL_MAX_BYTES": "16777216",
    "PROXY_GATEWAY_WORKERS": "2",
}


def in_the_readme() -> set[str]:
    """The variables in the first column of the configuration tables."""
    section = (ROOT / "README.md").read_text().partition("\n## Configuration\n")[2]
    rows = re.findall(r"^\| (`.+?) \|", section.partition("\n## ")[0], re.MULTILINE)
    names = {name for row in rows for name in re.findall(r"`([A-Z][A-Z_0-9]+)`", row)}
    elsewhere = set(UpSettings.variables())  # `up` does not run here
    return {name for name in names - elsewhere if not name.startswith("MORPH_")}


def test_the_readme_lists_what_the_chart_knows() -> None:
    upper = {name for name in variables() if name.isupper()}
    assert in_the_readme() == upper


@pytest.mark.parametrize("place", ["config", "secrets", "externalSecrets"])
def test_every_variable_reaches_each_service(place: str) -> None:
    given = {name: f"value-of-{name}" for name in {*variables(), NUMBERED} - NOT_HERE}
    given |= MUST_FIT
    values: dict[str, Any] = {}
    if place == "config":
        secret = SECRETS | {NUMBERED}
        values["config"] = {k: v for k, v in given.items() if k not in secret}
        values["secrets"] = {k: v for k, v in given.items() if k in secret}
    else:
        values["config"] = {k: v for k, v in given.items() if k in READ_BY_CHART}
        hidden = {k: v for k, v in given.items() if k not in values["config"]}
        values |= placed(place, hidden)
    found = environments(render(values))
    assert set(found) == set(SERVICES)
    for service, environ in found.items():
        missing = {k: v for k, v in given.items() if environ.get(k) != v}
        assert missing == {}, service


def placed(place: str, hidden: dict[str, str]) -> dict[str, Any]:
    if place == "secrets":
        return {"secrets": hidden}
    return {
        "externalSecrets": {
            "enabled": True,
            "secretStoreRef": {"name": "vault"},
            "data": {name: {"key": value} for name, value in hidden.items()},
        }
    }


def test_each_service_may_have_its_own() -> None:
    settable = variables() - NOT_HERE - SECRETS - MAYBE_SECRET - {"PROXY_HOST"}
    settable -= set(MUST_FIT) - {"PROXY_DRAIN_SECONDS"}
    settable -= {"PROXY_TELEMETRY_STREAM", "PROXY_TELEMETRY_GROUP"}
    settable -= {"PROXY_REDIS_NAMESPACE"}
    for service in SERVICES:
        given = {name: f"value-of-{name}" for name in settable}
        given["PROXY_DRAIN_SECONDS"] = "33"
        documents = render({"existingSecret": "s", service: {"config": given}})
        found = environments(documents)
        assert given.items() <= found[service].items()


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY_7", "PROXY_ADMIN_TOKEN"])
def test_a_mounted_file_may_hold_a_secret(variable: str) -> None:
    config = {f"{variable}_FILE": "/run/secrets/one"}
    found = environments(render({"existingSecret": "s", "config": config}))
    assert all(config.items() <= environ.items() for environ in found.values())


def test_variables_of_providers_are_secrets_like_others() -> None:
    secrets = {"PROVIDER_ACME": "acme-key", "ACME_API_KEY": "another-key"}
    found = environments(render({"existingSecret": "s", "secrets": secrets}))
    assert all(secrets.items() <= environ.items() for environ in found.values())


@pytest.mark.parametrize("name", ["bundled", "everything"])
def test_the_services_accept_what_the_chart_gives_them(name: str) -> None:
    elsewhere = {  # in a Secret that only the cluster has
        "PROXY_DATABASE_URL": "postgresql://proxy:password@postgres/proxy",
        "OPENAI_API_KEY": "sk-1234567890",
    }
    for environ in environments(render(load(VALUES[name]))).values():
        assert setting_problems({**elsewhere, **environ}) == []


def test_the_services_find_each_other() -> None:
    documents = render(load(VALUES["bundled"]))
    services = of_kind(documents, "Service")
    for environ in environments(documents).values():
        for variable in ("PROXY_ROUTER_URL", "PROXY_REDIS_URL", "PROXY_DATABASE_URL"):
            found = re.search(r"://(?:[^@/]*@)?([^:/]+):([0-9]+)", environ[variable])
            assert found, variable
            host, port = found.groups()
            ports = [p["port"] for p in services[host]["spec"]["ports"]]
            assert ports == [int(port)], variable


def test_hosts_of_the_ingress_may_use_the_dashboard() -> None:
    found = environments(render(load(VALUES["everything"])))
    assert {e["PROXY_ALLOWED_HOSTS"] for e in found.values()} == {"proxy.example.com"}
