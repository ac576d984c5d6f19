"""The address of a client, also behind balancers. Pure."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from libs.common.headers import Header

Trusted = Sequence[IPv4Network | IPv6Network]


def client_address(peer: object, headers: Sequence[Header], trusted: Trusted) -> str:
    """The address of the client whose connection comes from `peer`, which is what a
    transport calls `peername`; empty if it has none.

    A balancer in `trusted` tells the address from which it was asked as the last one of
    X-Forwarded-For. Addresses before it were written by whoever asked the balancer, so
    they count only if that is a trusted balancer, too."""
    text = _plain(str(peer[0])) if isinstance(peer, tuple) and peer else ""
    if not trusted:
        return text
    hops = [
        hop
        for name, value in headers
        if name == b"x-forwarded-for"
        for hop in value.decode("latin-1").split(",")
    ]
    while hops and _is_in(text, trusted):
        text = _plain(hops.pop().strip())
    return text


def _is_in(text: str, trusted: Trusted) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return any(address in network for network in trusted)


def _plain(text: str) -> str:
    """An IPv4 address also where a socket for both versions names it in IPv6."""
    prefix, found, address = text.lower().rpartition("::ffff:")
    return address if found and not prefix and "." in address else text
