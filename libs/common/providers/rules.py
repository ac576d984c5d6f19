"""Rules for registered providers, derived from the settings of the whole stack. Each
process that stores, resolves or connects to their addresses applies the same rules."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field

from libs.common.errors import SettingError
from libs.common.providers.destinations import Destinations, Endpoint
from libs.common.providers.references import References, origin, plain
from libs.common.redis import url
from libs.common.settings.base import CommonSettings, DatabaseSettings
from libs.common.settings.credential_variables import parse_globs
from libs.common.settings.services import IngestSettings
from libs.common.settings.upstreams import HttpUrl, ProviderSettings

POSTGRES_PORT = 5432


class _StackSettings(CommonSettings, ProviderSettings):
    """Addresses of the parts of this stack."""

    router_url: HttpUrl | None = Field(None, alias="PROXY_ROUTER_URL")


@dataclass(frozen=True, slots=True)
class ProviderRules:
    """Allowed addresses of providers, and keys that may be sent there."""

    references: References
    destinations: Destinations

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Read the rules from `environ`. Raises `SettingError`."""
        settings = _StackSettings.read(environ)
        upstream = settings.upstream_base_url
        listening = (
            *(settings.port, settings.router_port),
            *(settings.health_port, settings.ingest_port),
        )
        return cls(
            References(upstream, parse_globs(settings.credential_variables)),
            Destinations(
                upstream,
                settings.provider_private_addresses,
                frozenset(listening),
                frozenset(_ours(settings, environ)),
            ),
        )


def check_alert_address(environ: Mapping[str, str]) -> None:
    """The receiver of alerts follows the same rules. Raises `SettingError`."""
    url = IngestSettings.read(environ).alert_webhook_url
    refusal = url and ProviderRules.read(environ).destinations.refusal(url)
    if refusal:
        raise SettingError(
            "PROXY_ALERT_WEBHOOK_URL",
            f"its address {refusal}",
            "Name a receiver outside of this stack",
        )


def _ours(settings: _StackSettings, environ: Mapping[str, str]) -> Iterator[Endpoint]:
    yield from url.addresses(settings.redis_url)
    if settings.router_url is not None:
        _, host, port = origin(urlsplit(settings.router_url))
        yield host, port
    database = urlsplit(DatabaseSettings.read(environ).url)
    if database.scheme != "sqlite":
        for host in (database.hostname or "").split(","):  # libpq accepts several hosts
            yield plain(host), database.port or POSTGRES_PORT
