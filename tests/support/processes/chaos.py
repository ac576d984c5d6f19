"""Upstream keys that fail at random, one per account at a time: while one fails, its
sibling serves, so requests bound to the account can still be served."""

import asyncio
import random
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
)
from contextlib import asynccontextmanager
from functools import partial
from itertools import groupby
from typing import Any
from weakref import WeakSet

from libs.simulator.faults.faults import parse_script
from libs.simulator.server import RunningSimulator
from tests.support.processes.waiting import eventually

BURST_S = (0.2, 0.8)
WELL_AGAIN_S = 90.0  # longer than any test: there is little traffic at a test's end
LATELY = 100  # journal entries, far more than arrive between two polls
FAULTS: dict[str, dict[str, Any]] = {
    "500": {"status": 500},
    "503": {"status": 503},
    "429": {"status": 429, "headers": {"retry-after-ms": "150"}},
    "reset": {"reset": True},
    "cut": {"cut_after": 4},
}
REVOKED = "revoked"  # restored later
KINDS = (*FAULTS, REVOKED)


class Chaos:
    """Makes keys fail in short bursts, independently per account."""

    def __init__(
        self,
        simulator: RunningSimulator,
        models: Collection[str],
        seed: int,
        idle: Callable[[str], Awaitable[bool]],
        chosen: Callable[[str], Awaitable[bool]],
        waiting: WeakSet[Any],
    ) -> None:
        """`idle`: whether the product has no request in flight with a key; `chosen`:
        whether it chooses the key for any request; `waiting`: the requests of clients
        that have no answer yet, at any time."""
        self._idle, self._chosen, self._waiting = idle, chosen, waiting
        self._simulator = simulator
        self._models = set(models)
        self._seed = seed
        self._failing: dict[str, str] = {}  # key -> the kind of its fault

    @asynccontextmanager
    async def reigning(self, keys: Mapping[str, str]) -> AsyncIterator[None]:
        """Run the chaos until the context ends; afterwards every key works."""
        by_account = sorted(keys, key=lambda key: (keys[key], key))
        tasks = [
            asyncio.create_task(self._plague(account, list(siblings)))
            for account, siblings in groupby(by_account, keys.__getitem__)
        ]
        try:
            yield
            for task in tasks:
                assert not task.done(), task.exception()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for key in list(self._failing):
                self._recover(key)

    async def _plague(self, account: str, keys: list[str]) -> None:
        draw = random.Random(f"{self._seed} {account}")  # noqa: S311 - repeatable
        while True:
            key, kind = draw.choice(keys), draw.choice(KINDS)
            self._fail(key, kind)
            await asyncio.sleep(draw.uniform(*BURST_S))
            if kind == REVOKED:
                # A refusal that a busy gateway reads late would shut the key again,
                # while its sibling fails.
                idle = partial(self._idle, key)
                await eventually(idle, within_s=WELL_AGAIN_S, every_s=0.1)
            await self._until_well(key, self._recover(key))

    def _fail(self, key: str, kind: str) -> None:
        self._failing[key] = kind
        if kind == REVOKED:
            self._simulator.revoke(key)
        self._script()

    def _recover(self, key: str) -> int:
        """Returns how many requests had arrived before."""
        del self._failing[key]
        self._simulator.restore(key)
        self._script()
        return int(self._simulator.state.journal.stats()["arrived"])

    def _script(self) -> None:
        """Update the upstream's fault queue to the keys that fail."""
        faults = self._simulator.state.faults
        faults.clear()
        for key, kind in self._failing.items():
            if kind in FAULTS:
                script = {"key": key, "times": None, "fault": FAULTS[kind]}
                faults.add(parse_script(script))

    async def _until_well(self, key: str, since: int) -> None:
        """Wait until the key serves every model, and not as a trial, beside which no
        other request is sent there; only then may its sibling fail. A request that has
        tried the key is not sent there again, so wait for those, too."""
        served: set[str] = set()
        may_have_tried = WeakSet(self._waiting)

        async def serves() -> bool:
            served.update(self._served(key, since))
            return served >= self._models

        await eventually(serves, within_s=WELL_AGAIN_S, every_s=0.05)

        async def chosen() -> bool:
            if any(request in self._waiting for request in may_have_tried):
                return False
            return await self._chosen(key)

        await eventually(chosen, within_s=WELL_AGAIN_S, every_s=0.05)

    def _served(self, key: str, since: int) -> Iterator[str]:
        """Models that were answered successfully after request number `since`."""
        journal = self._simulator.state.journal
        for entry in journal.shown(LATELY, bodies=False)["entries"]:
            good = (entry["method"], entry["status"]) == ("POST", 200)
            if good and entry["key"] == key and entry["number"] > since:
                yield str(entry["model"])
