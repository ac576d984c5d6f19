"""The provider registry, from SQL into the catalogue: read when it changed, here or
by another router, when Redis was emptied, and now and then."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import structlog
from prometheus_client import Counter

from libs.common.contracts.catalogue import Alias, Resource
from libs.common.errors import ProxyError, RedisAway
from libs.common.providers.registry import Registry, joined
from libs.common.providers.sealing import Sealer, Unsealable
from libs.common.redis import keys
from libs.common.redis.client import Caller

log = structlog.get_logger()

EVERY_S = 0.5  # between two looks whether it changed
READ_EVERY = 20  # looks, until SQL is read whether or not it changed
FAILURES = Counter(
    "proxy_router_registry_failures_total", "Rounds that could not read the registry."
)


class Parts(NamedTuple):
    """What of a catalogue may change while the router runs."""

    resources: tuple[Resource, ...] = ()  # those of the environment, too
    aliases: tuple[Alias, ...] = ()


class Rows(Protocol):
    """What SQL knows; raises `StoreAway`."""

    async def registry(self) -> Registry: ...

    async def reseal(self, id_: str, old: str, new: str) -> bool: ...


class Changes:
    """Tells all routers, by way of Redis, that the registry changed in SQL."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def count(self) -> bytes | None:
        """Differs from before after a change; None on an emptied Redis."""
        found: bytes | None = await self._caller.call("GET", keys.registry_changes())
        return found

    async def tell(self) -> None:
        await self._caller.call("INCR", keys.registry_changes())


async def _nobody() -> None:
    """Wakes nobody."""


class RegistryReader:
    """What the registry makes of the catalogue. `parts` is None until SQL was read
    for the first time; when SQL goes away it stays as it was."""

    def __init__(
        self,
        rows: Rows,
        changes: Changes,
        ours: Sequence[Resource],
        sealer: Sealer,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """`ours` are the resources of the environment."""
        self._rows = rows
        self._changes = changes
        self._ours = tuple(ours)
        self._sealer = sealer
        self._environ = os.environ if environ is None else environ
        self._seen: bytes | None = None
        self._looks = 0
        self._due = True
        self._sealed_anew = False
        self._turn = asyncio.Lock()
        self._twice: tuple[str, ...] = ()
        self._said = ""  # the last failure, logged once
        self.parts: Parts | None = None
        # Called when `parts` changed: the publisher should not wait for its turn.
        self.on_change: Callable[[], Awaitable[None]] = _nobody

    async def run(self) -> None:
        """For ever; what goes wrong is tried again with the next round."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Read what may have changed. Never raises."""
        count = self._seen
        try:
            count = await self._changes.count()
        except ProxyError:
            log.debug("no news of the registry", action="registry_unheard")
        except Exception as error:  # noqa: BLE001 - the outermost loop
            log.debug("no news", action="registry_unheard", cause=str(error)[:80])
        due = self._due or count != self._seen or self._looks % READ_EVERY == 0
        self._looks += 1
        if due and await self._read():
            # The count was asked for before: a change in between is read twice.
            self._seen = count

    async def changed(self) -> None:
        """This router changed SQL: publish it, and tell the others. What fails is
        made up for by the next look."""
        self._due = True
        await self._read()
        try:
            await self._changes.tell()
        except RedisAway:
            log.info("routers not told", action="registry_untold")
        except Exception as error:  # noqa: BLE001 - SQL has it, whatever Redis says
            log.warning("routers not told", action="registry_untold", cause=str(error))

    async def _read(self) -> bool:
        async with self._turn:
            self._due = False
            try:
                registry = await self._rows.registry()
                if not self._sealed_anew:
                    registry = await self._seal_anew(registry)
            except ProxyError as cause:
                return self._failed(str(cause))
            except Exception as error:  # noqa: BLE001 - the outermost loop
                # No tables yet, as before the first migration.
                return self._failed(f"{type(error).__name__}: {str(error)[:80]}")
            self._said = ""
            before, self.parts = self.parts, self._parts(registry)
        if self.parts != before:
            await self.on_change()
        return True

    def _failed(self, cause: str) -> bool:
        self._due = True
        FAILURES.inc()
        if cause != self._said:
            log.warning("registry not read", action="registry_failed", cause=cause)
        self._said = cause
        return False

    def _parts(self, registry: Registry) -> Parts:
        resources, twice = joined(self._ours, registry, self._environ)
        if twice != self._twice:
            self._twice = twice
            log.error("ids taken", action="resource_ids_taken", resources=twice)
        return Parts(resources, registry.aliases)

    async def _seal_anew(self, registry: Registry) -> Registry:
        """Once in a router's life: what an older key sealed is sealed with the first
        one, so that the older can be taken away."""
        renewed = 0
        for provider in registry.providers:
            try:
                new = [self._sealer.renewed(token) for token in provider.sealed]
            except Unsealable:
                log.error(
                    "sealed key cannot be opened",
                    action="credential_missing",
                    provider=provider.id,
                )
                continue
            if new != list(provider.sealed):
                old = ",".join(provider.sealed)
                renewed += await self._rows.reseal(provider.id, old, ",".join(new))
        self._sealed_anew = True
        if not renewed:
            return registry
        log.info("keys sealed anew", action="keys_resealed", providers=renewed)
        return await self._rows.registry()
