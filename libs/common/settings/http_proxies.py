"""The way out: which HTTP proxy leads to an origin, by the variables that every
tool reads. Follows curl, with networks in NO_PROXY, and as Go's programs never
sends this machine's own addresses through a proxy."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Self
from urllib.parse import unquote, urlsplit

from libs.common.errors import SettingError

# What may name the proxy for a scheme; the first that is set counts.
VARIABLES = {
    "http": ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"),
    "https": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
}
DEFAULT_PORTS = {"http": 80, "https": 443}

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. Its URL may hold a password, so it is never shown."""

    scheme: str
    host: str
    port: int
    url: str = field(repr=False)
    authorization: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Exemption:
    """An entry of NO_PROXY: a domain with all below it (all there are, if it is
    empty) or a network, perhaps on one port only."""

    domain: str
    network: IPv4Network | IPv6Network | None = None
    port: int | None = None

    def covers(self, host: str, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            address = _address(host)
            return address is not None and address in self.network
        below = f".{self.domain}"
        return not self.domain or host == self.domain or host.endswith(below)


@dataclass(frozen=True, slots=True)
class Egress:
    """Which proxy leads where; without any, every way is direct."""

    proxies: Mapping[str, Proxy] = field(default_factory=dict)
    exemptions: tuple[Exemption, ...] = ()

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Raises `SettingError` for a proxy that cannot be used."""
        proxies = {}
        for scheme, variables in VARIABLES.items():
            named = next((v for v in variables if environ.get(v, "").strip()), None)
            if named is not None:
                proxies[scheme] = _proxy(named, environ[named].strip())
        listed = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
        entries = listed.replace(",", " ").lower().split()
        return cls(proxies, tuple(_exemption(entry) for entry in entries))

    def proxy_for(self, scheme: str, host: str, port: int) -> Proxy | None:
        """None: connect directly."""
        proxy = self.proxies.get(scheme)
        host = host.lower().rstrip(".")
        if proxy is None or _is_loopback(host):
            return None
        exempt = any(entry.covers(host, port) for entry in self.exemptions)
        return None if exempt else proxy


def _is_loopback(host: str) -> bool:
    address = _address(host)
    if address is not None:
        return address.is_loopback
    return host == "localhost" or host.endswith(".localhost")


def _address(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _exemption(entry: str) -> Exemption:
    name, port = _without_port(entry)
    try:
        return Exemption("", ip_network(name, strict=False), port)
    except ValueError:
        pass
    if name == "*":
        return Exemption("", None, port)
    # `.example.org` and `*.example.org` say what `example.org` says. A dot is
    # what no host ends in: an entry without a name exempts nobody.
    return Exemption(name.removeprefix("*").strip(".") or ".", None, port)


def _without_port(entry: str) -> tuple[str, int | None]:
    if entry.startswith("["):
        name, _, port = entry[1:].partition("]")
        port = port.removeprefix(":")
    elif entry.count(":") == 1:
        name, _, port = entry.partition(":")
    else:  # a name, or an IPv6 address without brackets
        return entry, None
    return name, int(port) if port.isdecimal() else None


def _proxy(variable: str, value: str) -> Proxy:
    fix = "Write http://[USER:PASSWORD@]HOST:PORT, or unset it"
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        port = parts.port
    except ValueError:  # a port that is no port, a bracket that is not closed
        raise SettingError(variable, "is no URL", fix) from None
    if parts.scheme not in DEFAULT_PORTS:
        raise SettingError(variable, "names a proxy that is no http(s) proxy", fix)
    if not parts.hostname or port == 0:
        raise SettingError(variable, "names no host", fix)
    return Proxy(
        parts.scheme,
        parts.hostname,
        port or DEFAULT_PORTS[parts.scheme],
        parts.geturl(),
        _basic(parts.username, parts.password),
    )


def _basic(user: str | None, password: str | None) -> bytes:
    if not user and not password:
        return b""
    pair = f"{unquote(user or '')}:{unquote(password or '')}"
    return b"Basic " + b64encode(pair.encode())
