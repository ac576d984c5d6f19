"""What is known of header names: a bounded table, and the order of the names in a
connection's last head. Pure."""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

MOST_NAMES: Final = 512  # what an odd peer sends must not fill memory
LONGEST_NAME: Final = 64  # bytes
MOST_ORDERED: Final = 32  # names of which a connection keeps the order

Entry = TypeVar("Entry")
"""What is known of one name; never None."""


class NameTable(Generic[Entry]):
    """Keeps what `make` makes of a name, because peers send the same few. Names beyond
    the bounds get their entry each time."""

    __slots__ = ("_make", "entries")

    def __init__(self, make: Callable[[bytes], Entry]) -> None:
        self._make = make
        self.entries: dict[bytes, Entry] = {}  # only `learn` adds some

    def learn(self, name: bytes) -> Entry:
        """The entry of a name that `entries` lacks."""
        made = self._make(name)
        if len(self.entries) < MOST_NAMES and len(name) <= LONGEST_NAME:
            self.entries[name] = made
        return made

    def placed(self, name: bytes, order: list[Entry], place: int) -> Entry:
        """The entry of a name at `place` in a head. `order` has the entries of the
        connection's last head, and gets this one. Peers send the same names in the same
        order: who finds the name at its place in `order` need not call this, which has
        to hash the name."""
        found = self.entries.get(name)
        if found is None:
            found = self.learn(name)
        if place < len(order):
            order[place] = found
        elif place < MOST_ORDERED:
            order.append(found)
        return found
