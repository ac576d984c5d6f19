"""The catalogue: all resources, and their being in Redis with the function
library, also after Redis was emptied or came back empty."""

import asyncio
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import structlog
import uuid_utils
from prometheus_client import Counter

from libs.common.accounts import with_accounts
from libs.common.contracts import Catalogue, Resource
from libs.common.errors import NoCatalogue, ProxyError

log = structlog.get_logger()

LIBRARY = Path(__file__).with_name("library.lua").read_text()
EVERY_S = 0.5
VERSION_CHARACTERS = 16
FAILURES = Counter(
    "proxy_router_publish_failures_total", "Rounds that could not publish."
)


def build_catalogue(resources: Iterable[Resource]) -> Catalogue:
    """The version is a hash of the content: equal content, equal version. The
    order counts, as it is the order in which resources are shown."""
    listed = tuple(resources)
    content = "\n".join(resource.model_dump_json() for resource in listed)
    digest = hashlib.sha256(content.encode()).hexdigest()
    return Catalogue(version=digest[:VERSION_CHARACTERS], resources=listed)


class Library(Protocol):
    """Where a catalogue is published."""

    async def load_library(self) -> None: ...

    async def publish(self, catalogue: Catalogue, event_id: str) -> bool: ...

    async def catalogue_version(self) -> str | None: ...

    async def learned_accounts(self) -> dict[str, str]: ...


class Leadership(Protocol):
    async def hold(self) -> bool: ...


class Publisher:
    """Puts the function library and the catalogue where they are missing, or
    were another's. Only the leading router does: replicas that are configured
    differently, as during a rollout, would replace each other's for ever.

    `published` says whether there was a catalogue a moment ago.
    """

    def __init__(
        self, library: Library, catalogue: Catalogue, leadership: Leadership
    ) -> None:
        self._library = library
        self._catalogue = self._published = catalogue
        self._learned: dict[str, str] = {}
        self._leadership = leadership
        self.published = False
        self._said = ""  # the last failure, logged once

    async def run(self) -> None:
        """For ever; what goes wrong is tried again with the next round."""
        while True:
            await self._try()
            await asyncio.sleep(EVERY_S)

    async def ensure(self) -> None:
        """Safe to repeat. Raises `RedisAway`, or `NoCatalogue` while another
        router leads and has not published."""
        if not await self._leadership.hold():
            if await self._library.catalogue_version() is None:
                raise NoCatalogue
            return
        await self._library.load_library()
        catalogue = self._named(await self._library.learned_accounts())
        if await self._library.publish(catalogue, str(uuid_utils.uuid7())):
            log.info(
                "catalogue published",
                action="catalogue_published",
                version=catalogue.version,
                resources=len(catalogue.resources),
            )

    def _named(self, learned: dict[str, str]) -> Catalogue:
        """The catalogue with the accounts that upstreams told. What was learned
        outlives an emptied Redis here."""
        fresh = learned.items() - self._learned.items()
        if fresh:
            self._learned.update(fresh)
            resources = with_accounts(self._catalogue.resources, self._learned)
            self._published = build_catalogue(resources)
        return self._published

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
