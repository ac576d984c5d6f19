"""Reads the provider registry from SQL for the catalogue: after a change by any router,
after Redis was emptied, and periodically."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import structlog
from prometheus_client import Counter

from libs.common.contracts.catalogue import Alias, Resource
from libs.common.contracts.prices import Price
from libs.common.errors import RedisAway
from libs.common.providers.registry import Registry, joined
from libs.common.providers.sealing import Sealer, Unsealable
from libs.common.redis.client import Caller
from libs.common.redis.keys import DEFAULT, Keys
from services.router.rounds import Rounds

log = structlog.get_logger()

EVERY_S = 0.5  # between checks for changes
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


class Changes:
    """Counts changes of the registry in Redis, to notify all routers."""

    def __init__(self, caller: Caller, keys: Keys = DEFAULT) -> None:
        self._caller = caller
        self._key = keys.registry_changes()

    async def count(self) -> bytes | None:
        """Changes with every change of the registry. None if Redis was emptied."""
        found: bytes | None = await self._caller.call("GET", self._key)
        return found

    async def tell(self) -> None:
        await self._caller.call("INCR", self._key)


async def _ignore() -> None:
    """The default for `on_change`."""


class RegistryReader:
    """The registry's part of the catalogue. `parts` is None until SQL was read once,
    and keeps its value while SQL is unreachable."""

    def __init__(
        self,
        rows: Rows,
        changes: Changes,
        ours: Sequence[Resource],
        sealer: Sealer,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """`ours`: the resources from the environment."""
        self._rows = rows
        self._changes = changes
        self._ours = tuple(ours)
        self._sealer = sealer
        self._environ = os.environ if environ is None else environ
        self._seen: bytes | None = None
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
        """Reads the registry if it may have changed. Never raises."""
        count = self._seen
        try:
            count = await self._changes.count()
        except Exception as error:  # noqa: BLE001 - the outermost loop
            log.debug(
                "registry changes not read",
                action="registry_unheard",
                cause=str(error)[:80],
            )
        due = self._due or count != self._seen or self._looks % READ_EVERY == 0
        self._looks += 1
        if due and await self._read():
            # The count was read before SQL: a change in between is read twice.
            self._seen = count

    async def changed(self) -> None:
        """Publishes a change that this router made in SQL, and notifies the others.
        What fails is retried by the next `look`."""
        self._due = True
        await self._read()
        try:
            await self._changes.tell()
        except RedisAway:
            log.info("other routers not notified", action="registry_untold")
        except Exception as error:  # noqa: BLE001 - SQL has the change
            log.warning(
                "other routers not notified",
                action="registry_untold",
                cause=str(error),
            )

    async def _read(self) -> bool:
        async with self._turn:
            self._due, before = False, self.parts
            done = await self._rounds.attempt(self._take)
            self._due = self._due or not done
        if self.parts != before:
            await self.on_change()
        return done

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
