"""The gateway's copy of the catalogue: the address and key of each resource. The last
copy stays in use while Redis is down."""

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

import structlog

from libs.common.contracts.catalogue import Catalogue, Resource
from libs.common.contracts.prices import PriceList
from libs.common.errors import NoCatalogue
from libs.common.providers.credentials import Credentials
from libs.common.providers.key_echoes import SentKey
from libs.common.providers.key_headers import key_header, upgrade_key_headers
from libs.common.routing.aliases import Targets, alias_targets
from libs.common.routing.functions import RoutingFunctions
from services.gateway.routing.target import Target
from services.gateway.upstream.origin import Origin

log = structlog.get_logger()


class GatewayCatalogue:
    """Targets by resource id."""

    def __init__(self, routing: RoutingFunctions, credentials: Credentials) -> None:
        self._routing = routing
        self._credentials = credentials
        self.targets: dict[str, Target] = {}
        self._refreshing = asyncio.Lock()
        self.version: str | None = None
        self.problem: str | None = None  # why it was not read yet
        self.alias_targets: Mapping[str, Targets] = {}  # model aliases
        self.prices: PriceList | None = None  # None: there are none
        # Resources whose keys this gateway cannot get. Not selected, unless all are.
        self.closed: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Was the catalogue ever read?"""
        return self.version is not None

    async def find(self, resource_id: str, version: str) -> Target | None:
        """The target of a decision made with catalogue `version`."""
        if version != self.version:
            await self.refresh(version)
        return self.targets.get(resource_id)

    async def refresh(self, wanted: str | None = None) -> None:
        """Reads the catalogue, unless another task has just read version `wanted`.
        Raises `RedisAway` or `NoCatalogue`; the latter at first also until a router of
        this version has loaded its functions, so that no request arrives before."""
        async with self._refreshing:
            if wanted is None or wanted != self.version:
                if not self.known:
                    await self._require_functions()
                self._adopt(await self._routing.catalogue())

    async def _require_functions(self) -> None:
        try:
            await self._routing.require_functions()
        except NoCatalogue as cause:
            self.problem = str(cause)
            raise
        self.problem = None

    def _adopt(self, catalogue: Catalogue) -> None:
        self.targets = {r.id: self._target(r) for r in catalogue.resources}
        closed = [id_ for id_, t in self.targets.items() if not t.authorization]
        self.closed = tuple(closed) if len(closed) < len(self.targets) else ()
        self.alias_targets = alias_targets(catalogue)
        self.prices = PriceList(catalogue.prices) if catalogue.prices else None
        self.version = catalogue.version
        log.info(
            "catalogue read",
            action="catalogue_read",
            version=catalogue.version,
            resources=len(self.targets),
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
            authorization=b": ".join(key_header(resource.auth_type, key)),
            upgrade_keys=upgrade_key_headers(resource.auth_type, key),
            sent=SentKey(key),
        )
