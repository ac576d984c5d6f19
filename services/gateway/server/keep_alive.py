"""Keeps silent streams and sockets of clients open, for balancers that cut idle
connections (PROXY_CLIENT_KEEPALIVE_SECONDS)."""

from typing import Protocol


class Silent(Protocol):
    """Something with clients that may hear nothing for long."""

    def keep_alive(self) -> None:
        """Send something to each client that got nothing since the last call."""


class ClientKeepAlive:
    """Breaks silences. Looks at all clients at once: a timer for each would cost
    more."""

    def __init__(self, longest_s: float, *clients: Silent) -> None:
        """`longest_s`: the longest silence; 0: no limit."""
        self._every_s = longest_s / 2
        self._clients = clients
        self._next = 0.0

    def check(self, now: float) -> None:
        """Called often, with the event loop's time."""
        if self._every_s and now >= self._next:
            self._next = now + self._every_s
            for clients in self._clients:
                clients.keep_alive()
