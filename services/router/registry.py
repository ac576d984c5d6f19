"""Reads the provider registry from SQL for the catalogue: after a change by any router
(services/router/shards/changes.py), and periodically."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import structlog
from prometheus_client import Counter

from libs.common.contracts.catalogue import Alias, Resource
from libs.common.contracts.prices import Price
from libs.common.providers.registry import Registry, joined
from libs.common.providers.sealing import Sealer, Unsealable
from services.router.rounds import Rounds

log = structlog.get_logger()

EVERY_S = 0.5  # between checks whether the last read failed
READ_EVERY = 20  # checks between unconditional reads of SQL
FAILURES = Counter(
    "proxy_router_registry_failures_total", "Rounds that could not read the registry."
)


class Parts(NamedTuple):
    """The parts of a catalogue that may change while the router runs."""

    resources: tuple[Resource, ...] = ()  # including those from the environment
    aliases: tuple[Alias, ...] = ()
    prices: tuple[Price, ...] = ()


class Rows(Protocol):
    """The registry in SQL. Raises `StoreAway`."""

    async def registry(self) -> Registry: ...

    async def reseal(self, id_: str, old: str, new: str) -> bool: ...


async def _ignore() -> None:
    """The default for `on_change`."""


class RegistryReader:
    """The registry's part of the catalogue. `parts` is None until SQL was read once,
    and keeps its value while SQL is unreachable."""

    def __init__(
        self,
        rows: Rows,
        ours: Sequence[Resource],
        sealer: Sealer,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """`ours`: the resources from the environment."""
        self._rows = rows
        self._ours = tuple(ours)
        self._sealer = sealer
        self._environ = os.environ if environ is None else environ
        self._looks = 0
        self._due = True
        self._resealed = False
        self._turn = asyncio.Lock()
        self._twice: tuple[str, ...] = ()
        self._rounds = Rounds(
            FAILURES, "registry not read", "registry_failed", log.warning
        )
        self.parts: Parts | None = None
        # Called when `parts` changed, so that it is published at once.
        self.on_change: Callable[[], Awaitable[None]] = _ignore

    async def run(self) -> None:
        """Runs forever. A failed round is retried by the next one."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Reads the registry if it is due. Never raises."""
        due = self._due or self._looks % READ_EVERY == 0
        self._looks += 1
        if due:
            await self._read()

    async def changed(self) -> None:
        """Publishes a change in SQL. What fails is retried by the next `look`."""
        self._due = True
        await self._read()

    async def _read(self) -> None:
        async with self._turn:
            self._due, before = False, self.parts
            done = await self._rounds.attempt(self._take)
            self._due = self._due or not done
        if self.parts != before:
            await self.on_change()

    async def _take(self) -> None:
        registry = await self._rows.registry()
        if not self._resealed:
            registry = await self._reseal(registry)
        self.parts = self._parts(registry)

    def _parts(self, registry: Registry) -> Parts:
        resources, twice = joined(self._ours, registry, self._environ)
        if twice != self._twice:
            self._twice = twice
            log.error(
                "resource ids used twice", action="resource_ids_taken", resources=twice
            )
        return Parts(resources, registry.aliases, registry.prices)

    async def _reseal(self, registry: Registry) -> Registry:
        """Once per router: reseals with the first encryption key what older ones
        sealed, so that these can be removed."""
        renewed = 0
        for provider in registry.providers:
            try:
                new = [self._sealer.renewed(token) for token in provider.sealed]
            except Unsealable:
                log.error(
                    "provider key cannot be unsealed",
                    action="credential_missing",
                    provider=provider.id,
                )
                continue
            if new != list(provider.sealed):
                old = ",".join(provider.sealed)
                renewed += await self._rows.reseal(provider.id, old, ",".join(new))
        self._resealed = True
        if not renewed:
            return registry
        log.info("provider keys resealed", action="keys_resealed", providers=renewed)
        return await self._rows.registry()
