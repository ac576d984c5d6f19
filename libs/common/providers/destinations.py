"""Which addresses providers may have. Pure but for asking libc what a host's odd
spelling means.

A provider's address comes from whoever may use the admin API. It must not lead to
what only this machine or this cloud instance may reach: metadata services, the
local link, this stack's own ports. The configured upstream is the operator's word
and is not judged."""

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from libs.common.errors import ProxyError
from libs.common.providers.references import origin, plain
from libs.common.settings.http_proxies import DEFAULT_PORTS

Address = IPv4Address | IPv6Address
Endpoint = tuple[str, int]  # host and port

# Names and addresses at which clouds give an instance its secrets. Most of them
# are link-local anyway.
_METADATA_NAMES = frozenset(
    {
        *("metadata", "metadata.google.internal", "metadata.goog"),
        *("instance-data", "instance-data.ec2.internal", "metadata.azure.internal"),
    }
)
_METADATA = frozenset(
    map(
        ip_address,
        (
            *("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "fd00:ec2::23"),
            *("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd20:ce::254"),
        ),
    )
)
_THIS_NETWORK = ip_network("0.0.0.0/8")
_CLASS_E = ip_network("240.0.0.0/4")  # the broadcast address included
_SITE_LOCAL = ip_network("fec0::/10")
# IPv6 addresses that stand for an IPv4 address: where its bytes are.
_EMBEDDING = (
    (IPv6Network("::/96"), (12, 13, 14, 15)),  # IPv4-compatible
    (IPv6Network("::ffff:0:0:0/96"), (12, 13, 14, 15)),  # SIIT
    (IPv6Network("64:ff9b::/96"), (12, 13, 14, 15)),  # NAT64
    (IPv6Network("64:ff9b:1::/48"), (12, 13, 14, 15)),  # NAT64 of a site
    (IPv6Network("64:ff9b:1::/48"), (6, 7, 9, 10)),
    (IPv6Network("64:ff9b:1::/48"), (7, 9, 10, 11)),
    (IPv6Network("64:ff9b:1::/48"), (9, 10, 11, 12)),
    (IPv6Network("2002::/16"), (2, 3, 4, 5)),  # 6to4
)
_ISATAP = (b"\0\0\x5e\xfe", b"\2\0\x5e\xfe")
_NUMERIC = re.compile(r"(?:0[xX][0-9A-Fa-f]*|[0-9]+)")  # a last label of an address


class Forbidden(ProxyError):
    """Providers may not be at this address."""


@dataclass(frozen=True, slots=True)
class Destinations:
    """The rules. `upstream` is PROXY_UPSTREAM_BASE_URL; `ours` are the hosts and ports
    of this stack, which the ports of `listening` on this machine belong to as well."""

    upstream: str
    private: bool = True  # PROXY_PROVIDER_PRIVATE_ADDRESSES
    listening: frozenset[int] = frozenset()
    ours: frozenset[Endpoint] = frozenset()
    metadata: frozenset[Address] = _METADATA

    def refusal(self, base_url: str) -> str | None:
        """Why nothing may be sent to `base_url`, by what it says itself; None when
        its host has to be looked up, or may be dialled."""
        try:
            scheme, host, port = origin(urlsplit(base_url))
        except ValueError:
            return "is no URL"
        if scheme not in DEFAULT_PORTS or not host:
            return "is no http(s) URL with a host"
        if self.exempt(scheme, host, port):
            return None
        return self.host_refusal(host, port)

    def exempt(self, scheme: str, host: str, port: int) -> bool:
        """Is it the configured upstream's?"""
        return origin(urlsplit(self.upstream)) == (scheme, plain(host), port)

    def host_refusal(self, host: str, port: int) -> str | None:
        """The same of a host alone."""
        host = plain(host)
        address = address_of(host)
        if address is not None:
            return self.address_refusal(address)
        if host in _METADATA_NAMES:
            return "is a cloud's metadata service"
        if not self.private and (host == "localhost" or host.endswith(".localhost")):
            return _PRIVATE
        return OURS if (host, port) in self.ours else None

    def address_refusal(self, address: Address) -> str | None:
        """Why an address may not be dialled, its port aside."""
        for meant in meanings(address):
            refusal = self._refusal_of(meant)
            if refusal is not None:
                return refusal
        return None

    def concerns(self, port: int) -> bool:
        """May something of ours be at this port?"""
        return port in self.listening or any(port == ours for _, ours in self.ours)

    def _refusal_of(self, address: Address) -> str | None:
        if address in self.metadata:
            return "is a cloud's metadata service"
        if address.is_link_local:
            return "is link-local"
        if address.is_unspecified or address in _THIS_NETWORK:
            return "is the unspecified address"
        if address.is_multicast or address in _CLASS_E:
            return "is no host's address"
        if not self.private and (not address.is_global or address in _SITE_LOCAL):
            return _PRIVATE
        return None


OURS = "is one of this stack's own ports"
_PRIVATE = "is private, and PROXY_PROVIDER_PRIVATE_ADDRESSES is false"


def address_of(host: str) -> Address | None:
    """The address that a host is already, in any spelling that libc takes: decimal,
    octal, hexadecimal, with fewer than four parts. None for a name."""
    host = plain(host).strip("[]")
    try:
        return ip_address(host)
    except ValueError:
        pass
    if not _NUMERIC.fullmatch(host.rpartition(".")[2]):
        return None
    try:
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def meanings(address: Address) -> Iterator[Address]:
    """The addresses that dialling this one may reach: itself, and what translators
    and tunnels on the way take it for."""
    if isinstance(address, IPv4Address):
        yield address
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
        return
    address = IPv6Address(address.packed)  # without a zone
    yield address
    if not (address.is_unspecified or address.is_loopback):
        yield from _embedded(address)


def _embedded(address: IPv6Address) -> Iterator[IPv4Address]:
    packed = address.packed
    for network, places in _EMBEDDING:
        embedded = bytes(packed[place] for place in places)
        # Of a site's NAT64 one place of four is the right one; the others begin
        # with a 0, with which no host's address does.
        if address in network and embedded[0]:
            yield IPv4Address(embedded)
    if address.teredo is not None:
        yield from address.teredo
    if packed[8:12] in _ISATAP:
        yield IPv4Address(packed[12:])
