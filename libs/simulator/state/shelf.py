"""A dictionary that drops its oldest entries, limited by count and by weight."""

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Shelf(Generic[T]):
    """Keeps the newest entries within its limits."""

    def __init__(self, max_entries: int, max_weight: int | None = None) -> None:
        self._entries: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._max_entries = max_entries
        self._max_weight = max_weight
        self._weight = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> T | None:
        entry = self._entries.get(key)
        return entry[0] if entry else None

    def put(self, key: str, value: T, weight: int = 0) -> list[T]:
        """Add or replace an entry; returns the entries dropped for it."""
        self.pop(key)
        self._entries[key] = (value, weight)
        self._weight += weight
        forgotten = []
        while self._over_bounds():
            oldest = next(iter(self._entries))
            gone = self.pop(oldest)
            if gone is not None:
                forgotten.append(gone)
        return forgotten

    def pop(self, key: str) -> T | None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self._weight -= entry[1]
        return entry[0]

    def values(self) -> list[T]:
        """All entries, oldest first."""
        return [value for value, _ in self._entries.values()]

    def _over_bounds(self) -> bool:
        if len(self._entries) > self._max_entries:
            return True
        # A single entry above the weight limit is kept.
        too_heavy = self._max_weight is not None and self._weight > self._max_weight
        return too_heavy and len(self._entries) > 1
