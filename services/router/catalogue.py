"""The catalogue: all resources, and their being in Redis with the function
library, also after Redis was emptied or came back empty."""

import asyncio
import hashlib
from collections.abc import Iterable
from typing import Protocol

import structlog
import uuid_utils
from prometheus_client import Counter

from libs.common.contracts.catalogue import Alias, Catalogue, Resource
from libs.common.errors import NoCatalogue, ProxyError
from libs.common.providers.registry import published_part
from libs.common.routing.accounts import with_accounts
from services.router.registry import Parts

log = structlog.get_logger()

EVERY_S = 0.5
VERSION_CHARACTERS = 16
FAILURES = Counter(
    "proxy_router_publish_failures_total", "Rounds that could not publish."
)


def build_catalogue(
    resources: Iterable[Resource], aliases: Iterable[Alias] = ()
) -> Catalogue:
    """The version is a hash of the content: equal content, equal version. The
    order counts, as it is the order in which resources are shown."""
    listed, named = tuple(resources), tuple(aliases)
    content = "\n".join(part.model_dump_json() for part in (*listed, *named))
    digest = hashlib.sha256(content.encode()).hexdigest()
    version = digest[:VERSION_CHARACTERS]
    return Catalogue(version=version, resources=listed, aliases=named)


class Library(Protocol):
    """Where a catalogue is published."""

    async def load_library(self) -> None: ...

    async def publish(self, catalogue: Catalogue, event_id: str) -> bool: ...

    async def catalogue(self) -> Catalogue: ...

    async def catalogue_version(self) -> str | None: ...

    async def learned_accounts(self) -> dict[str, str]: ...


class Leadership(Protocol):
    async def hold(self) -> bool: ...


class Registered(Protocol):
    """All resources and aliases; None: SQL was not read yet."""

    @property
    def parts(self) -> Parts | None: ...


class Publisher:
    """Puts the function library and the catalogue where they are missing, or
    were another's. Only the leading router does: replicas that are configured
    differently, as during a rollout, would replace each other's for ever.

    `published` says whether there was a catalogue a moment ago.
    """

    def __init__(
        self,
        library: Library,
        ours: Catalogue,
        leadership: Leadership,
        registered: Registered | None = None,
    ) -> None:
        """`ours` is of the environment alone."""
        self._library = library
        self._ours = Parts(ours.resources, ours.aliases)
        self._registered = registered
        self._made_of: tuple[Parts, dict[str, str]] = self._ours, {}
        self._made = ours
        self._learned: dict[str, str] = {}
        self._leadership = leadership
        self._turn = asyncio.Lock()  # no older catalogue after a newer one
        self.published = False
        self._said = ""  # the last failure, logged once

    async def run(self) -> None:
        """For ever; what goes wrong is tried again with the next round."""
        while True:
            await self._try()
            await asyncio.sleep(EVERY_S)

    @property
    def catalogue(self) -> Catalogue:
        """As this router would publish it."""
        known = self._registered.parts if self._registered else None
        return self._build(known or self._ours)

    async def renew(self) -> None:
        """Publish a change at once. Never raises: the next round tries again."""
        await self._try()

    async def ensure(self) -> None:
        """Safe to repeat. Raises `RedisAway`, or `NoCatalogue` while another
        router leads and has not published."""
        async with self._turn:
            if not await self._leadership.hold():
                if await self._library.catalogue_version() is None:
                    raise NoCatalogue
                return
            await self._library.load_library()
            self._learned |= await self._library.learned_accounts()
            catalogue = self._build(await self._parts())
            if await self._library.publish(catalogue, str(uuid_utils.uuid7())):
                log.info(
                    "catalogue published",
                    action="catalogue_published",
                    version=catalogue.version,
                    resources=len(catalogue.resources),
                    aliases=len(catalogue.aliases),
                )

    async def _parts(self) -> Parts:
        """While SQL cannot be read, what was published of the registry stays."""
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
        return Parts((*self._ours.resources, *others), kept[1])

    def _build(self, parts: Parts) -> Catalogue:
        """The catalogue with the accounts that upstreams told. What was learned
        outlives an emptied Redis here."""
        if self._made_of != (parts, self._learned):
            self._made_of = parts, dict(self._learned)
            resources = with_accounts(parts.resources, self._learned)
            self._made = build_catalogue(resources, parts.aliases)
        return self._made

    async def _try(self) -> None:
        try:
            await self.ensure()
        except ProxyError as cause:
            self._fail(str(cause))
        except Exception as error:  # noqa: BLE001 - the outermost loop
            # A Redis that refuses writes (full, a replica) comes back too, and
            # until then the router still shows what is wrong.
            self._fail(f"{type(error).__name__}: {error}")
        else:
            self.published, self._said = True, ""

    def _fail(self, cause: str) -> None:
        self.published = False
        FAILURES.inc()
        if cause != self._said:
            log.error("cannot publish", action="publish_failed", cause=cause)
        self._said = cause
