"""Settings: which web pages may use the proxy."""

from urllib.parse import urlsplit

from pydantic import Field, field_validator

from libs.common.browser_guard import Guard, host_of, origin_of
from libs.common.runtime.own_addresses import is_local
from libs.common.settings.base import CommonSettings
from libs.common.settings.messages import SettingErrorCarrier
from libs.common.settings.upstreams import HttpUrl


class BrowserSettings(CommonSettings):
    """Web pages that may use the proxy."""

    # Comma-separated lists.
    allowed_hosts: str | None = Field(None, alias="PROXY_ALLOWED_HOSTS")
    allowed_origins: str | None = Field(None, alias="PROXY_ALLOWED_ORIGINS")
    # The URL of the gateway for browsers: in login links, and an allowed host.
    public_url: HttpUrl | None = Field(None, alias="PROXY_PUBLIC_URL")

    @property
    def guard(self) -> Guard:
        """The guard that applies these settings."""
        return Guard(
            bound=self.host,
            hosts=tuple(filter(None, map(_host, self._host_names()))),
            origins=tuple(filter(None, map(origin_of, _listed(self.allowed_origins)))),
            is_local=is_local,
        )

    def _host_names(self) -> list[str]:
        public = urlsplit(self.public_url).netloc if self.public_url else ""
        return [*_listed(self.allowed_hosts), *filter(None, [public])]

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, value: str | None) -> str | None:
        if bad := next((h for h in _listed(value) if _host(h) is None), None):
            raise SettingErrorCarrier(
                "PROXY_ALLOWED_HOSTS",
                f"contains {bad[:100]!r}, which is not a host name",
                "Use a comma-separated list of names or addresses without a scheme, "
                "such as proxy.example.com,*.internal.example",
            )
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, value: str | None) -> str | None:
        if bad := next((o for o in _listed(value) if origin_of(o) is None), None):
            raise SettingErrorCarrier(
                "PROXY_ALLOWED_ORIGINS",
                f"contains {bad[:100]!r}, which is not an origin",
                "Use a comma-separated list of SCHEME://HOST[:PORT], such as "
                "https://app.example.com,http://localhost:3000",
            )
        return value


def _listed(value: str | None) -> list[str]:
    return [part.strip() for part in (value or "").split(",") if part.strip()]


def _host(entry: str) -> str | None:
    """Normalize a name, an address, or `*.` and a name. The port is dropped."""
    mark = "*." if entry.startswith("*.") else ""
    name = host_of(entry.removeprefix(mark))
    return name and mark + name
