"""Addresses of hosts."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

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
