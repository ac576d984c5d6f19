"""The gateway's own probes and metrics."""

import falcon
from falcon.asgi import Request, Response

from libs.common.runtime.compiled import form
from services.gateway.admin.conditions import GatewayConditions
from services.gateway.auth.authenticator import Authenticator
from services.gateway.ledger.journal.delivery import JournalDelivery
from services.gateway.routing.catalogue import GatewayCatalogue
from services.gateway.scrape.exposition import CONTENT_TYPE
from services.gateway.scrape.scrape import Scrape


class Probes:
    """`/healthz`, `/readyz` and `/metrics`."""

    def __init__(
        self,
        catalogue: GatewayCatalogue,
        delivery: JournalDelivery,
        authenticator: Authenticator,
        conditions: GatewayConditions,
        scrape: Scrape,
    ) -> None:
        self._catalogue = catalogue
        self._delivery = delivery
        self._authenticator = authenticator
        self._conditions = conditions
        self._scrape = scrape
        self._form = form()

    async def on_get_healthz(self, _: Request, resp: Response) -> None:
        resp.media = {"status": "ok"}

    async def on_get_readyz(self, _: Request, resp: Response) -> None:
        """Ready while requests can be routed, if only from the last catalogue."""
        degraded = list((await self._conditions.now()).values())
        ready = self._catalogue.known and self._authenticator.ready
        resp.status = falcon.HTTP_200 if ready else falcon.HTTP_503
        resp.media = {
            "ready": ready,
            "degraded": degraded,
            "outbox": len(self._delivery),
            "journal_bytes": self._delivery.journal.size_bytes,
            "resources": len(self._catalogue.targets),
            "catalogue": self._catalogue.version,
            "hot_path": self._form,
        }

    async def on_get_metrics(self, _: Request, resp: Response) -> None:
        resp.content_type = CONTENT_TYPE
        resp.data = self._scrape.text()

    on_head_healthz = on_get_healthz
    on_head_readyz = on_get_readyz
    on_head_metrics = on_get_metrics
