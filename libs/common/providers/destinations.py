"""Rules for the addresses of providers. Pure but for calling libc to parse unusual
spellings of an address.

Users of the admin API choose the address of a provider. It must not lead to targets
that only this machine or cloud instance can reach: metadata services, link-local
addresses, ports of this stack. The upstream configured by the operator is exempt."""

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

# Names and addresses of cloud metadata services. Most of them are link-local.
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
_CLASS_E = ip_network("240.0.0.0/4")  # includes the broadcast address
_SITE_LOCAL = ip_network("fec0::/10")
# IPv6 networks that embed an IPv4 address, and the positions of its bytes.
_EMBEDDING = (
    (IPv6Network("::/96"), (12, 13, 14, 15)),  # IPv4-compatible
    (IPv6Network("::ffff:0:0:0/96"), (12, 13, 14, 15)),  # SIIT
    (IPv6Network("64:ff9b::/96"), (12, 13, 14, 15)),  # NAT64
    (IPv6Network("64:ff9b:1::/48"), (12, 13, 14, 15)),  # local-use NAT64
    (IPv6Network("64:ff9b:1::/48"), (6, 7, 9, 10)),
    (IPv6Network("64:ff9b:1::/48"), (7, 9, 10, 11)),
    (IPv6Network("64:ff9b:1::/48"), (9, 10, 11, 12)),
    (IPv6Network("2002::/16"), (2, 3, 4, 5)),  # 6to4
)
_ISATAP = (b"\0\0\x5e\xfe", b"\2\0\x5e\xfe")
_NUMERIC = re.compile(
    r"(?:0[xX][0-9A-Fa-f]*|[0-9]+)"
)  # last label of a numeric address


class Forbidden(ProxyError):
    """Providers must not use this address."""


@dataclass(frozen=True, slots=True)
class Destinations:
    """The rules. `upstream` is PROXY_UPSTREAM_BASE_URL. `ours` are the hosts and ports
    of this stack, in addition to the ports `listening` on this machine."""

    upstream: str
    private: bool = True  # PROXY_PROVIDER_PRIVATE_ADDRESSES
    listening: frozenset[int] = frozenset()
    ours: frozenset[Endpoint] = frozenset()
    metadata: frozenset[Address] = _METADATA

    def refusal(self, base_url: str) -> str | None:
        """Return why `base_url` is forbidden, without a DNS lookup. None means that it
        is allowed, or that its host must be resolved first."""
        try:
            scheme, host, port = origin(urlsplit(base_url))
        except ValueError:
            return "is not a URL"
        if scheme not in DEFAULT_PORTS or not host:
            return "is not an http(s) URL with a host"
        if self.exempt(scheme, host, port):
            return None
        return self.host_refusal(host, port)

    def exempt(self, scheme: str, host: str, port: int) -> bool:
        """Whether this is the origin of the configured upstream."""
        return origin(urlsplit(self.upstream)) == (scheme, plain(host), port)

    def host_refusal(self, host: str, port: int) -> str | None:
        """Return why a host is forbidden, without a DNS lookup."""
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
        """Return why an address is forbidden, regardless of its port."""
        for meant in meanings(address):
            refusal = self._refusal_of(meant)
            if refusal is not None:
                return refusal
        return None

    def concerns(self, port: int) -> bool:
        """Whether an endpoint of this stack uses this port."""
        return port in self.listening or any(port == ours for _, ours in self.ours)

    def _refusal_of(self, address: Address) -> str | None:
        if address in self.metadata:
            return "is a cloud's metadata service"
        if address.is_link_local:
            return "is link-local"
        if address.is_unspecified or address in _THIS_NETWORK:
            return "is the unspecified address"
        if address.is_multicast or address in _CLASS_E:
            return "is not the address of a host"
        if not self.private and (not address.is_global or address in _SITE_LOCAL):
            return _PRIVATE
        return None


OURS = "is one of this stack's own ports"
_PRIVATE = "is private, and PROXY_PROVIDER_PRIVATE_ADDRESSES is false"


def address_of(host: str) -> Address | None:
    """Parse a numeric host in any spelling that libc accepts: decimal, octal,
    hexadecimal, with fewer than four parts. Return None for a name."""
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
    """Yield the addresses that a connection to this one may reach: the address itself,
    and those that translators and tunnels derive from it."""
    if isinstance(address, IPv4Address):
        yield address
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
        return
    address = IPv6Address(address.packed)  # drops the zone
    yield address
    if not (address.is_unspecified or address.is_loopback):
        yield from _embedded(address)


def _embedded(address: IPv6Address) -> Iterator[IPv4Address]:
    packed = address.packed
    for network, places in _EMBEDDING:
        embedded = bytes(packed[place] for place in places)
        # Local-use NAT64 has four possible positions. The wrong ones start with a 0
        # byte, which no address of a host does.
        if address in network and embedded[0]:
            yield IPv4Address(embedded)
    if address.teredo is not None:
        yield from address.teredo
    if packed[8:12] in _ISATAP:
        yield IPv4Address(packed[12:])
