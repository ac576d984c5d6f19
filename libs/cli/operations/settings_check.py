"""Checks every setting of every service before anything starts."""

from collections.abc import Callable, Iterator, Mapping

from libs.cli.observe import check_port
from libs.common.errors import SettingError
from libs.common.providers.rules import ProviderRules, check_alert_address
from libs.common.settings.base import CommonSettings
from libs.common.settings.http_proxies import Egress
from libs.common.settings.resources import resources_from_environment
from libs.common.settings.services import GatewaySettings, IngestSettings
from libs.common.settings.variables import MODELS, quoted_values
from libs.common.store.prices import read_prices

# Service -> the variable and the settings field of its port.
PORTS = {
    "gateway": ("PROXY_PORT", "port"),
    "router": ("PROXY_ROUTER_PORT", "router_port"),
    "health": ("PROXY_HEALTH_PORT", "health_port"),
    "ingest": ("PROXY_INGEST_PORT", "ingest_port"),
}


def setting_problems(environ: Mapping[str, str]) -> list[SettingError]:
    """An error for each invalid variable."""
    found: dict[str, SettingError] = {}
    for error in _problems(environ):
        found.setdefault(error.variable, error)
    return list(found.values())


def _problems(environ: Mapping[str, str]) -> Iterator[SettingError]:
    yield from quoted_values(environ)
    invalid = [error for model in MODELS for error in model.problems(environ)]
    yield from invalid
    yield from _problem(lambda: Egress.read(environ))
    upstream = GatewaySettings.read({}).upstream_base_url
    yield from _problem(lambda: resources_from_environment(environ, upstream))
    if not invalid:  # these read the settings again
        yield from _problem(lambda: ProviderRules.read(environ))
        yield from _problem(lambda: _prices(environ))
        yield from _problem(lambda: check_alert_address(environ))


def _problem(read: Callable[[], object]) -> Iterator[SettingError]:
    try:
        read()
    except SettingError as error:
        yield error


def _prices(environ: Mapping[str, str]) -> None:
    file = IngestSettings.read(environ).prices_file
    if file is not None:
        read_prices(file)


def check_ports(environ: Mapping[str, str], *services: str) -> None:
    """Raise `SettingError` for the first port that is in use."""
    settings = CommonSettings.read(environ)
    for service in services:
        check_port_of(settings, service)


def check_port_of(settings: CommonSettings, service: str) -> None:
    """Raise `SettingError` unless the service can listen on its address."""
    variable, field = PORTS[service]
    host = settings.host_of(service)
    of_host = "PROXY_HOST" if host == settings.host else "PROXY_INTERNAL_HOST"
    check_port(host, getattr(settings, field), variable, of_host)


def address(settings: CommonSettings, service: str) -> str:
    """The URL of `service` as seen from this machine."""
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104
    host = settings.host_of(service)
    host = anywhere.get(host, host)
    port = getattr(settings, PORTS[service][1])
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
