"""Holds answers back until a test releases them."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from libs.simulator.wire import Json

EVERY_KEY = "*"


class Holding:
    """While a key is held, its answers wait before their first byte."""

    def __init__(self) -> None:
        self._held: dict[str, asyncio.Event] = {}
        self._waiting: Counter[str] = Counter()

    def hold(self, key: str = EVERY_KEY) -> None:
        self._held.setdefault(key, asyncio.Event())

    def release(self, key: str | None = None) -> None:
        """Release the answers of one key, or of all."""
        for name in [key] if key else list(self._held):
            released = self._held.pop(name, None)
            if released:
                released.set()

    async def pass_by(self, key: str) -> None:
        """Return as soon as this key is not held."""
        while held := self._held.get(EVERY_KEY) or self._held.get(key):
            with self._counted(key):
                await held.wait()

    def shown(self) -> Json:
        return {
            "held": sorted(self._held),
            "waiting": dict(+self._waiting),
            "total": self._waiting.total(),
        }

    @contextmanager
    def _counted(self, key: str) -> Iterator[None]:
        self._waiting[key] += 1
        try:
            yield
        finally:
            self._waiting[key] -= 1
