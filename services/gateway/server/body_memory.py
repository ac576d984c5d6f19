"""Memory that all clients share for large request bodies and WebSocket messages.
Small ones are bounded by the number of connections."""

SMALL = 65_536  # bytes; up to this many take nothing from a `Room`


class Room:
    """A number of bytes. Whoever takes some must return them."""

    __slots__ = ("_limit", "held")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def hold(self, count: int) -> bool:
        """Take `count` bytes. Returns False if so many are not free."""
        if self.held + count > self._limit:
            return False
        self.held += count
        return True

    def let_go(self, count: int) -> None:
        """Return `count` bytes."""
        self.held -= count
