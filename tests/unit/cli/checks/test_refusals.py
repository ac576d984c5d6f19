"""The lists of checks. Each condition is tried on real processes in
tests/integration/cli/test_refusals.py."""

import socket
from pathlib import Path

import pytest

from libs.cli.checks.finding import Context, Level, Refused, refuse
from libs.cli.checks.refusals import plan, refusals_of, settings
from tests.support.databases.old_redis import old_redis
from tests.support.processes.ports import free_port

PORTS = ("PROXY_PORT", "PROXY_ROUTER_PORT", "PROXY_HEALTH_PORT", "PROXY_INGEST_PORT")
SERVICES = ("gateway", "router", "health", "ingest")


def context(folder: Path, **given: str) -> Context:
    ports = {name: str(free_port()) for name in PORTS}
    return Context({**ports, "PROXY_DATA_DIR": str(folder), **given}, 0.5)


def test_valid_settings_are_said(tmp_path: Path) -> None:
    assert [f.level for f in settings(context(tmp_path))] == [Level.OK]


def test_every_invalid_setting_is_refused(tmp_path: Path) -> None:
    wrong = context(tmp_path, PROXY_LOG_LEVEL="loud", PROXY_REQUIRE_KEYS="maybe")
    assert [f.level for f in settings(wrong)] == [Level.REFUSED, Level.REFUSED]


def test_what_up_adds_must_fit_what_is_set(tmp_path: Path) -> None:
    assert list(plan(context(tmp_path))) == []
    simulated = {"PROXY_SIMULATE": "true", "OPENAI_API_KEY": "sk-1"}
    wrong = context(tmp_path, **simulated, OPENAI_RESOURCE_WEIGHTS="3")
    (finding,) = plan(wrong)
    assert finding.subject == "OPENAI_RESOURCE_WEIGHTS"
    (finding,) = plan(context(tmp_path / ("x" * 120)))
    assert (finding.subject, finding.level) == ("PROXY_DATA_DIR", Level.REFUSED)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_starts_while_redis_does_not_answer(
    tmp_path: Path, service: str
) -> None:
    away = {"PROXY_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    refuse(refusals_of(service), context(tmp_path, **away))


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_starts_with_an_old_redis(tmp_path: Path, service: str) -> None:
    with old_redis("6.0.16") as url, pytest.raises(Refused) as refused:
        refuse(refusals_of(service), context(tmp_path, PROXY_REDIS_URL=url))
    assert refused.value.problems[0].variable == "PROXY_REDIS_URL"


@pytest.mark.parametrize(
    ("service", "variable"), list(zip(SERVICES, PORTS, strict=True))
)
def test_a_service_needs_its_own_port_only(
    tmp_path: Path, service: str, variable: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        given = context(tmp_path, **{variable: str(server.getsockname()[1])})
        for other in SERVICES:
            if other != service:
                refuse(refusals_of(other), given)
        with pytest.raises(Refused, match=f"^{variable}: is "):
            refuse(refusals_of(service), given)


def test_only_a_gateway_needs_the_data_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    given = context(tmp_path / "file")
    refuse(refusals_of("health"), given)
    with pytest.raises(Refused, match=r"^PROXY_DATA_DIR: is "):
        refuse(refusals_of("gateway"), given)
