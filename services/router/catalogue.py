"""Publishes the catalogue and the function library in Redis, again whenever Redis
lost them."""

import asyncio
import hashlib
from collections.abc import Iterable
from typing import Protocol

import structlog
import uuid_utils
from prometheus_client import Counter

from libs.common.contracts.catalogue import Alias, Catalogue, Resource
from libs.common.contracts.prices import Price
from libs.common.errors import NoCatalogue
from libs.common.providers.registry import published_part
from libs.common.routing.accounts import with_accounts
from services.router.registry import Parts
from services.router.rounds import Rounds

log = structlog.get_logger()

EVERY_S = 0.5
# Rounds between two comparisons of the whole library, which has 150 KB.
COMPARE_EVERY = 10
VERSION_CHARACTERS = 16
FAILURES = Counter(
    "proxy_router_publish_failures_total", "Rounds that could not publish."
)


def build_catalogue(
    resources: Iterable[Resource],
    aliases: Iterable[Alias] = (),
    prices: tuple[Price, ...] = (),
) -> Catalogue:
    """The version is a hash of the content. The order of resources counts: they are
    shown in it."""
    listed, named = tuple(resources), tuple(aliases)
    parts = [part.model_dump_json() for part in (*listed, *named)]
    content = "\n".join([*parts, *map(repr, prices)])
    digest = hashlib.sha256(content.encode()).hexdigest()
    version = digest[:VERSION_CHARACTERS]
    return Catalogue(version=version, resources=listed, aliases=named, prices=prices)


class Library(Protocol):
    """Where the catalogue is published."""

    async def load_library(self) -> None: ...

    async def library_is_older(self) -> bool: ...

    async def publish(self, catalogue: Catalogue, event_id: str) -> bool: ...

    async def catalogue(self) -> Catalogue: ...

    async def catalogue_version(self) -> str | None: ...

    async def learned_accounts(self) -> dict[str, str]: ...


class Leadership(Protocol):
    async def hold(self) -> bool: ...

    async def take(self) -> None: ...


class Registered(Protocol):
    """Resources and aliases of the registry; None: SQL was not read yet."""

    @property
    def parts(self) -> Parts | None: ...


class Publisher:
    """Publishes the function library and the catalogue when they are missing or differ.
    Only the leading router does: replicas with different configurations, as during a
    rollout, would otherwise replace each other's forever.

    `published`: whether Redis had a catalogue in the last round.
    """

    def __init__(
        self,
        library: Library,
        ours: Catalogue,
        leadership: Leadership,
        registered: Registered | None = None,
    ) -> None:
        """`ours`: the catalogue of the environment alone."""
        self._library = library
        self._ours = Parts(ours.resources, ours.aliases)
        self._registered = registered
        self._made_of: tuple[Parts, dict[str, str]] = self._ours, {}
        self._made = ours
        self._learned: dict[str, str] = {}
        self._leadership = leadership
        self._turn = asyncio.Lock()  # so that no older catalogue replaces a newer one
        self.published = False
        self._led = False
        self._until_compared = 0  # rounds
        self._rounds = Rounds(
            FAILURES, "cannot publish the catalogue", "publish_failed", log.error
        )

    async def run(self) -> None:
        """Publishes periodically. Failures are retried in the next round."""
        while True:
            await self.renew()
            await asyncio.sleep(EVERY_S)

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue that this router would publish."""
        known = self._registered.parts if self._registered else None
        return self._build(known or self._ours)

    async def renew(self) -> None:
        """Publish now. Never raises: failures are retried in the next round."""
        self.published = await self._rounds.attempt(self.ensure)

    async def ensure(self) -> None:
        """Idempotent. Raises `RedisAway`, or `NoCatalogue` while another router leads
        and has not published."""
        async with self._turn:
            if not await self._leads():
                if await self._library.catalogue_version() is None:
                    raise NoCatalogue
                return
            if self._compares():
                await self._load()
            self._learned |= await self._library.learned_accounts()
            catalogue = self._build(await self._parts())
            try:
                await self._publish(catalogue)
            except NoCatalogue:  # Redis lost the functions
                await self._load()
                await self._publish(catalogue)

    async def _publish(self, catalogue: Catalogue) -> None:
        if await self._library.publish(catalogue, str(uuid_utils.uuid7())):
            log.info(
                "catalogue published",
                action="catalogue_published",
                version=catalogue.version,
                resources=len(catalogue.resources),
                aliases=len(catalogue.aliases),
            )

    async def _load(self) -> None:
        await self._library.load_library()
        self._until_compared = COMPARE_EVERY

    def _compares(self) -> bool:
        """Whether to look at the library itself. Publishing shows at once that it is
        missing, but not that it is another version's."""
        return not self.published or self._until_compared <= 0

    async def _leads(self) -> bool:
        """The newest version leads: gateways need the functions of their own version,
        or of a newer one. An older leader follows as soon as its lease is taken."""
        self._until_compared -= 1
        leads = await self._leadership.hold()
        if leads != self._led:
            self._led, self._until_compared = leads, 0
        if leads or not self._compares():
            return leads
        if not await self._library.library_is_older():
            self._until_compared = COMPARE_EVERY
            return False
        await self._leadership.take()
        log.info("took the lead from an older router", action="lead_taken")
        return True

    async def _parts(self) -> Parts:
        """While SQL cannot be read, keeps the published part of the registry."""
        if self._registered is None:
            return self._ours
        if self._registered.parts is not None:
            return self._registered.parts
        try:
            published = await self._library.catalogue()
        except NoCatalogue:
            return self._ours
        kept, taken = published_part(published), {r.id for r in self._ours.resources}
        others = (r for r in kept[0] if r.id not in taken)
        return Parts((*self._ours.resources, *others), kept[1], published.prices)

    def _build(self, parts: Parts) -> Catalogue:
        """The catalogue with the accounts that upstreams named. This router remembers
        them when Redis was emptied."""
        if self._made_of != (parts, self._learned):
            self._made_of = parts, dict(self._learned)
            resources = with_accounts(parts.resources, self._learned)
            self._made = build_catalogue(resources, parts.aliases, parts.prices)
        return self._made
