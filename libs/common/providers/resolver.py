"""Addresses of hosts, and which of them may be dialled."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from libs.common.providers.destinations import (
    OURS,
    Address,
    Destinations,
    Forbidden,
    address_of,
    meanings,
)

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
Lookup = Callable[[str, int], Awaitable[list[AddressInfo]]]


async def look_up(host: str, port: int) -> list[AddressInfo]:
    """All addresses of a host, IPv6 and IPv4. Raises `OSError`."""
    loop = asyncio.get_running_loop()
    return list(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))


class Resolver:
    """Those who ask for one host at a time share a lookup: each takes a thread,
    and there are few."""

    def __init__(self, lookup: Lookup = look_up) -> None:
        self._lookup = lookup
        self._under_way: dict[tuple[str, int], asyncio.Future[list[AddressInfo]]] = {}

    async def find(self, host: str, port: int) -> list[AddressInfo]:
        """Raises `OSError`."""
        numeric = _numeric(host, port)
        if numeric:
            return numeric
        asked = host, port
        lookup = self._under_way.get(asked)
        if lookup is None:
            lookup = asyncio.ensure_future(self._lookup(host, port))
            self._under_way[asked] = lookup
            lookup.add_done_callback(lambda done: self._ended(asked, done))
        # Who gives up does not end it for the others.
        return await asyncio.shield(lookup)

    def _ended(
        self, asked: tuple[str, int], done: "asyncio.Future[list[AddressInfo]]"
    ) -> None:
        del self._under_way[asked]
        if not done.cancelled():
            done.exception()  # seen, even if nobody waits any more


def _numeric(host: str, port: int) -> list[AddressInfo]:
    """The one address of a host that is an address already."""
    try:
        return list(
            socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )
        )
    except OSError:
        return []


class CheckedResolver:
    """Addresses that providers may have. What it returns is what must be dialled: a
    second lookup may say something else."""

    def __init__(
        self, destinations: Destinations, resolver: Resolver | None = None
    ) -> None:
        self._destinations = destinations
        self._resolver = resolver or Resolver()

    async def find(self, scheme: str, host: str, port: int) -> list[AddressInfo]:
        """Addresses of an origin; those that are not allowed are left out. Raises
        `OSError`, and `Forbidden` when none is left."""
        rules = self._destinations
        if rules.exempt(scheme, host, port):
            return await self._resolver.find(host, port)
        self.check(scheme, host, port)
        allowed, refusal = [], None
        for info in await self._resolver.find(host, port):
            said = await self._refusal(info, port)
            if said is None:
                allowed.append(info)
            refusal = refusal or said
        if refusal is not None and not allowed:
            raise Forbidden(f"the provider's address {refusal}")
        return allowed

    def check(self, scheme: str, host: str, port: int) -> None:
        """Without a lookup: for hosts that somebody else looks up. Raises
        `Forbidden`."""
        rules = self._destinations
        if not rules.exempt(scheme, host, port):
            refusal = rules.host_refusal(host, port)
            if refusal is not None:
                raise Forbidden(f"the provider's address {refusal}")

    async def _refusal(self, info: AddressInfo, port: int) -> str | None:
        address = address_of(str(info[4][0]))
        if address is None:
            return "is of an unknown kind"
        refusal = self._destinations.address_refusal(address)
        if refusal is None and self._destinations.concerns(port):
            return await self._refusal_of_ours(address, port)
        return refusal

    async def _refusal_of_ours(self, address: Address, port: int) -> str | None:
        """Is this address and port one of this stack's own?"""
        wanted = set(meanings(address))
        here = any(map(is_here, wanted))
        if here and port in self._destinations.listening:
            return OURS
        for host, own in self._destinations.ours:
            if own != port:
                continue
            theirs = await self._addresses(host, port)
            if wanted & theirs or (here and any(map(is_here, theirs))):
                return OURS
        return None

    async def _addresses(self, host: str, port: int) -> set[Address]:
        try:
            infos = await self._resolver.find(host, port)
        except OSError:
            return set()
        found = (address_of(str(info[4][0])) for info in infos)
        return {meant for address in found if address for meant in meanings(address)}


def is_here(address: Address) -> bool:
    """Is it this machine's? Only those can be bound to."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
