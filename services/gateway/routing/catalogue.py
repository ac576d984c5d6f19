"""The gateway's copy of the catalogue: the address and key of each resource. The last
copy stays in use while Redis is down."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog

from libs.common.contracts.catalogue import Catalogue, Resource
from libs.common.providers.credentials import Credentials
from libs.common.providers.key_echoes import NO_KEY, SentKey
from libs.common.routing.aliases import AliasTarget, alias_targets
from libs.common.routing.functions import RoutingFunctions
from services.gateway.upstream.origin import Origin

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Target:
    """A resource with what a request to it needs. `path` is the base URL's, without a
    trailing slash; `authorization` is empty when this gateway cannot get the key."""

    resource: Resource
    origin: Origin
    host: bytes
    path: bytes
    authorization: bytes
    sent: SentKey = NO_KEY  # the key, to be masked in answers


class GatewayCatalogue:
    """Targets by resource id."""

    def __init__(self, routing: RoutingFunctions, credentials: Credentials) -> None:
        self._routing = routing
        self._credentials = credentials
        self._targets: dict[str, Target] = {}
        self._refreshing = asyncio.Lock()
        self.version: str | None = None
        self.alias_targets: Mapping[str, AliasTarget] = {}  # model aliases
        # Resources whose keys this gateway cannot get. Not selected, unless all are.
        self.closed: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Was the catalogue ever read?"""
        return self.version is not None

    @property
    def targets(self) -> Mapping[str, Target]:
        return self._targets

    async def find(self, resource_id: str, version: str) -> Target | None:
        """The target of a decision made with catalogue `version`."""
        if version != self.version:
            await self.refresh(version)
        return self._targets.get(resource_id)

    async def refresh(self, wanted: str | None = None) -> None:
        """Reads the catalogue, unless another task has just read version `wanted`.
        Raises `RedisAway` or `NoCatalogue`."""
        async with self._refreshing:
            if wanted is None or wanted != self.version:
                self._adopt(await self._routing.catalogue())

    def _adopt(self, catalogue: Catalogue) -> None:
        self._targets = {r.id: self._target(r) for r in catalogue.resources}
        closed = [id_ for id_, t in self._targets.items() if not t.authorization]
        self.closed = tuple(closed) if len(closed) < len(self._targets) else ()
        self.alias_targets = alias_targets(catalogue)
        self.version = catalogue.version
        log.info(
            "catalogue read",
            action="catalogue_read",
            version=catalogue.version,
            resources=len(self._targets),
        )

    def _target(self, resource: Resource) -> Target:
        key = self._credentials.key_of(resource)
        if key is None:  # possibly because the base URL is invalid
            return Target(resource, Origin("http", "", 0), b"", b"", b"")
        url = urlsplit(resource.base_url)
        host = url.hostname or ""
        port = url.port or (443 if url.scheme == "https" else 80)
        return Target(
            resource=resource,
            origin=Origin(url.scheme, host, port),
            host=url.netloc.encode("ascii"),
            path=url.path.rstrip("/").encode("ascii"),
            authorization=b"Bearer " + key.encode("ascii"),
            sent=SentKey(key),
        )
