"""Resolves host names, and filters the addresses that providers may use."""

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
    """Return all IPv6 and IPv4 addresses of a host. Raises `OSError`."""
    loop = asyncio.get_running_loop()
    return list(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))


class Resolver:
    """Concurrent requests for the same host share one lookup, because each lookup
    occupies a thread of a small pool."""

    def __init__(self, lookup: Lookup = look_up) -> None:
        self._lookup = lookup
        self._under_way: dict[tuple[str, int], asyncio.Future[list[AddressInfo]]] = {}

    async def find(self, host: str, port: int) -> list[AddressInfo]:
        """Return the addresses of a host. Raises `OSError`."""
        numeric = _numeric(host, port)
        if numeric:
            return numeric
        key = host, port
        lookup = self._under_way.get(key)
        if lookup is None:
            lookup = asyncio.ensure_future(self._lookup(host, port))
            self._under_way[key] = lookup
            lookup.add_done_callback(lambda done: self._ended(key, done))
        # A canceled caller must not cancel the lookup for the others.
        return await asyncio.shield(lookup)

    def _ended(
        self, key: tuple[str, int], done: "asyncio.Future[list[AddressInfo]]"
    ) -> None:
        del self._under_way[key]
        if not done.cancelled():
            done.exception()  # retrieved, even if no caller waits


def _numeric(host: str, port: int) -> list[AddressInfo]:
    """Return the address of a numeric host, or an empty list for a name."""
    try:
        return list(
            socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )
        )
    except OSError:
        return []


class CheckedResolver:
    """Resolves hosts to allowed addresses. Callers must connect to the returned
    addresses: a second lookup may give different ones."""

    def __init__(
        self, destinations: Destinations, resolver: Resolver | None = None
    ) -> None:
        self._destinations = destinations
        self._resolver = resolver or Resolver()

    async def find(self, scheme: str, host: str, port: int) -> list[AddressInfo]:
        """Return the allowed addresses of an origin. Raises `OSError`, or `Forbidden`
        if none is allowed."""
        rules = self._destinations
        if rules.exempt(scheme, host, port):
            return await self._resolver.find(host, port)
        self.check(scheme, host, port)
        allowed, refusal = [], None
        for info in await self._resolver.find(host, port):
            reason = await self._refusal(info, port)
            if reason is None:
                allowed.append(info)
            refusal = refusal or reason
        if refusal is not None and not allowed:
            raise Forbidden(f"the provider's address {refusal}")
        return allowed

    def check(self, scheme: str, host: str, port: int) -> None:
        """Check an origin without a lookup, for hosts that an HTTP proxy resolves.
        Raises `Forbidden`."""
        rules = self._destinations
        if not rules.exempt(scheme, host, port):
            refusal = rules.host_refusal(host, port)
            if refusal is not None:
                raise Forbidden(f"the provider's address {refusal}")

    async def _refusal(self, info: AddressInfo, port: int) -> str | None:
        address = address_of(str(info[4][0]))
        if address is None:
            return "has an unknown address family"
        refusal = self._destinations.address_refusal(address)
        if refusal is None and self._destinations.concerns(port):
            return await self._refusal_of_ours(address, port)
        return refusal

    async def _refusal_of_ours(self, address: Address, port: int) -> str | None:
        """Return a refusal if the address and port belong to this stack."""
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
    """Whether the address belongs to this machine: only then can a socket bind to
    it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
