"""Dialing in tests, and talking to the server."""

import asyncio
import socket
from ipaddress import ip_address

import pytest

from libs.common.providers.destinations import Destinations
from libs.common.providers.resolver import AddressInfo, Resolver
from services.gateway.upstream.connector import Dialer
from services.gateway.upstream.errors import NotSent
from services.gateway.upstream.origin import Origin
from tests.support.clients.sockets import Visits
from tests.support.processes.waiting import eventually

NAME = "api.test"  # hosts of this machine bypass proxies
# Two addresses of this machine, so that nothing else is ever dialed.
REBOUND, ALLOWED, FORBIDDEN = "rebound.test", "127.0.0.1", "127.0.0.2"


class Talk(asyncio.Protocol):
    """Collects what it receives."""

    def __init__(self) -> None:
        self.heard = b""
        self.made = 0
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made += 1

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


def at(visits: Visits, scheme: str = "http", host: str = "127.0.0.1") -> Origin:
    return Origin(scheme, host, visits.port)


def here(*ports: int) -> Resolver:
    """A resolver: every host has an address on this machine for each of `ports`."""

    async def look_up(_host: str, _port: int) -> list[AddressInfo]:
        kind = int(socket.SOCK_STREAM)
        family = int(socket.AF_INET)
        return [(family, kind, 6, "", ("127.0.0.1", port)) for port in ports]

    return Resolver(look_up)


class Rebinding:
    """DNS that changes its answer on each lookup: an allowed address, then a forbidden
    one (a metadata service's), and so on."""

    rules = Destinations(
        "https://api.openai.com/v1", metadata=frozenset({ip_address(FORBIDDEN)})
    )

    def __init__(self) -> None:
        self.asked = 0
        self.resolver = Resolver(self._look_up)

    async def _look_up(self, _: str, port: int) -> list[AddressInfo]:
        self.asked += 1
        address = ALLOWED if self.asked % 2 else FORBIDDEN
        kind, family = int(socket.SOCK_STREAM), int(socket.AF_INET)
        return [(family, kind, 6, "", (address, port))]


async def says_hello(dialer: Dialer, origin: Origin) -> asyncio.Transport:
    """Dial, send a line and expect its echo."""
    transport, talk = await dialer.dial(origin, Talk, 5)
    assert isinstance(talk, Talk)
    transport.write(b"hello")

    async def echoed() -> bool:
        return talk.heard == b"hello"

    await eventually(echoed)
    assert talk.made == 1
    return transport


async def refusal(dialer: Dialer, origin: Origin, within_s: float = 5) -> str:
    with pytest.raises(NotSent) as error:
        await dialer.dial(origin, Talk, within_s)
    assert "hush" not in str(error.value)
    return str(error.value)
