"""Checks every setting of every service before anything starts."""

from collections.abc import Mapping

from libs.cli.observe import check_port
from libs.common.providers.rules import ProviderRules
from libs.common.settings.base import CommonSettings
from libs.common.settings.http_proxies import Egress
from libs.common.settings.resources import resources_from_environment
from libs.common.settings.services import SERVICES, GatewaySettings, UpSettings

# Service -> the variable and the settings field of its port.
PORTS = {
    "gateway": ("PROXY_PORT", "port"),
    "router": ("PROXY_ROUTER_PORT", "router_port"),
    "health": ("PROXY_HEALTH_PORT", "health_port"),
    "ingest": ("PROXY_INGEST_PORT", "ingest_port"),
}


def check_settings(environ: Mapping[str, str]) -> None:
    """Raise `SettingError` for the first invalid value."""
    for settings in SERVICES.values():
        settings.read(environ)
    UpSettings.read(environ)
    gateway = GatewaySettings.read(environ)
    Egress.read(environ)
    ProviderRules.read(environ)
    resources_from_environment(environ, gateway.upstream_base_url)


def check_ports(environ: Mapping[str, str], *services: str) -> None:
    """Raise `SettingError` for the first port that is in use."""
    settings = CommonSettings.read(environ)
    for service in services:
        variable, field = PORTS[service]
        check_port(settings.host, getattr(settings, field), variable)


def address(settings: CommonSettings, service: str) -> str:
    """The URL of `service` as seen from this machine."""
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104
    host = anywhere.get(settings.host, settings.host)
    port = getattr(settings, PORTS[service][1])
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
