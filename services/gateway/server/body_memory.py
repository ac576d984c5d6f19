"""Memory that clients share for what is large: bodies of requests, and messages of
sockets while they come. Small ones are bounded by the number of connections."""

SMALL = 65_536  # bytes; what has no more needs no room


class Room:
    """So many bytes; whoever takes some gives them back."""

    __slots__ = ("_limit", "held")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def hold(self, count: int) -> bool:
        """Take so many bytes; False when there is no room for them."""
        if self.held + count > self._limit:
            return False
        self.held += count
        return True

    def let_go(self, count: int) -> None:
        self.held -= count
