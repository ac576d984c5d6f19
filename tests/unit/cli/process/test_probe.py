"""The port that a container's health check asks."""

import pytest

from libs.cli.operations.settings_check import PORTS as SETTINGS_PORTS
from libs.cli.process.probe import PORTS, port
from libs.common.settings.base import CommonSettings


@pytest.mark.parametrize("service", SETTINGS_PORTS)
def test_names_and_defaults_are_those_of_the_settings(service: str) -> None:
    variable, field = SETTINGS_PORTS[service]

    assert PORTS[service] == (variable, str(getattr(CommonSettings.read({}), field)))


def test_the_environment_moves_a_port_and_a_number_is_itself() -> None:
    assert port("router", {"PROXY_ROUTER_PORT": "9001"}) == "9001"
    assert port("router", {"PROXY_ROUTER_PORT": ""}) == "8001"
    assert port("8005", {"PROXY_PORT": "9000"}) == "8005"
