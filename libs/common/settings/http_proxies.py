"""Selects the HTTP proxy for an origin from the variables that all tools read. Pure.

Follows curl, and also accepts networks in NO_PROXY. As in Go's net/http, requests to
loopback addresses never use a proxy."""

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

# Variables that name the proxy of a scheme; the first that is set is used.
VARIABLES = {
    "http": ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"),
    "https": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
}
DEFAULT_PORTS = {"http": 80, "https": 443}

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. Its URL may contain a password, so `repr` omits it."""

    scheme: str
    host: str
    port: int
    url: str = field(repr=False)
    authorization: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Exemption:
    """An entry of NO_PROXY: a domain with its subdomains (every domain if empty) or a
    network, optionally limited to one port."""

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
    """The proxy for each scheme; without proxies, all connections are direct."""

    proxies: Mapping[str, Proxy] = field(default_factory=dict)
    exemptions: tuple[Exemption, ...] = ()

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Read the proxy variables. Raises `SettingError` for an invalid proxy URL."""
        proxies = {}
        for scheme, variables in VARIABLES.items():
            named = next((v for v in variables if environ.get(v, "").strip()), None)
            if named is not None:
                proxies[scheme] = _proxy(named, environ[named].strip())
        listed = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
        entries = listed.replace(",", " ").lower().split()
        return cls(proxies, tuple(_exemption(entry) for entry in entries))

    def proxy_for(self, scheme: str, host: str, port: int) -> Proxy | None:
        """Return the proxy for an origin, or None for a direct connection."""
        proxy = self.proxies.get(scheme)
        host = host.lower().rstrip(".")
        if proxy is None or is_loopback(host):
            return None
        exempt = any(entry.covers(host, port) for entry in self.exemptions)
        return None if exempt else proxy


def is_loopback(host: str) -> bool:
    """Is this a name or an address of this machine?"""
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
    # `.example.org` and `*.example.org` mean the same as `example.org`. An entry
    # without a name becomes a dot, which matches no host.
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
    fix = "Use http://[USER:PASSWORD@]HOST:PORT, or unset it"
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        port = parts.port
    except ValueError:  # invalid port, unclosed bracket
        raise SettingError(variable, "is not a URL", fix) from None
    if parts.scheme not in DEFAULT_PORTS:
        raise SettingError(variable, "names a proxy that is not an http(s) proxy", fix)
    if not parts.hostname or port == 0:
        raise SettingError(variable, "does not name a host", fix)
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
