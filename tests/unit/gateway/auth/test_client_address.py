"""The address of a client, also behind balancers."""

from ipaddress import ip_network

import pytest

from libs.common.headers import Header
from services.gateway.auth.client_address import client_address

BALANCERS = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "told", "address"),
    [
        (("203.0.113.9", 5), ["198.51.100.1"], "203.0.113.9"),  # not a balancer
        (("10.0.0.2", 5), [], "10.0.0.2"),
        (("10.0.0.2", 5), ["198.51.100.1"], "198.51.100.1"),
        (("::ffff:10.0.0.2", 5, 0, 0), ["198.51.100.1"], "198.51.100.1"),
        (("fd00::1", 5, 0, 0), ["2001:db8::5"], "2001:db8::5"),
        # The client wrote the first one; the balancer added the second.
        (("10.0.0.2", 5), ["10.9.9.9, 198.51.100.1"], "198.51.100.1"),
        (("10.0.0.2", 5), ["198.51.100.1, 10.0.0.3"], "198.51.100.1"),
        (("10.0.0.2", 5), ["198.51.100.1", "10.0.0.3"], "198.51.100.1"),
        (("10.0.0.2", 5), ["198.51.100.1, junk"], "junk"),
        (("10.0.0.2", 5), ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("/run/socket", ["198.51.100.1"], ""),
        (None, ["198.51.100.1"], ""),
    ],
)
def test_addresses(peer: object, told: list[str], address: str) -> None:
    headers: list[Header] = [(b"x-forwarded-for", hop.encode()) for hop in told]
    assert client_address(peer, headers, BALANCERS) == address


def test_without_balancers_the_header_is_not_believed() -> None:
    headers: list[Header] = [(b"x-forwarded-for", b"198.51.100.1")]
    assert client_address(("10.0.0.2", 5), headers, ()) == "10.0.0.2"
