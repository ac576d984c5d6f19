"""The command line of each service."""

import pytest

from libs.cli.commands import SERVICES, service_command


def test_the_router_has_a_port_of_its_own() -> None:
    command = service_command("router", {"PROXY_ROUTER_PORT": "9001"}, 1.0)

    assert command[-2:] == ["9001", "3"]


@pytest.mark.parametrize("name", ["gateway", "health", "ingest"])
def test_services_run_as_modules(name: str) -> None:
    assert service_command(name, {})[-2:] == ["-m", f"services.{name}"]


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_is_on_a_command_line(name: str) -> None:
    environ = {
        "PROXY_REDIS_URL": "redis://:hush@h/0",
        "PROXY_ADMIN_TOKEN": "hush-hush-hush",
        "OPENAI_API_KEY": "sk-hush",
    }
    assert "hush" not in " ".join(service_command(name, environ))
