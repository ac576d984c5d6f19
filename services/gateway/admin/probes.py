"""The gateway's own probes and metrics."""

from collections.abc import Callable

import falcon
import httpx
import prometheus_client
from falcon.asgi import Request, Response

from services.gateway.auth.authenticator import Authenticator
from services.gateway.ledger.journal.delivery import JournalDelivery
from services.gateway.routing.catalogue import GatewayCatalogue


class Probes:
    """`/healthz`, `/readyz` and `/metrics`."""

    def __init__(
        self,
        catalogue: GatewayCatalogue,
        delivery: JournalDelivery,
        redis_up: Callable[[], bool],
        client: httpx.AsyncClient,
        authenticator: Authenticator,
    ) -> None:
        self._authenticator = authenticator
        self._catalogue = catalogue
        self._delivery = delivery
        self._redis_up = redis_up
        self._client = client

    async def on_get_healthz(self, _: Request, resp: Response) -> None:
        resp.media = {"status": "ok"}

    async def on_get_readyz(self, _: Request, resp: Response) -> None:
        """Ready while requests can be routed, if only from the last catalogue."""
        degraded = []
        if not self._redis_up():
            degraded.append("redis: unreachable, routing from the last catalogue")
            if self._authenticator.limits:
                degraded.append("proxy keys: limits per minute are not enforced")
        degraded += self._journal_problems()
        if not await self._router_answers():
            degraded.append("router: unreachable")
        if not self._authenticator.ready:
            degraded.append("proxy keys: not read yet")
        ready = self._catalogue.known and self._authenticator.ready
        resp.status = falcon.HTTP_200 if ready else falcon.HTTP_503
        resp.media = {
            "ready": ready,
            "degraded": degraded,
            "outbox": len(self._delivery),
            "journal_bytes": self._delivery.journal.size_bytes,
            "resources": len(self._catalogue.targets),
            "catalogue": self._catalogue.version,
        }

    def _journal_problems(self) -> list[str]:
        journal = self._delivery.journal
        problems = [journal.problem] if journal.problem else []
        if journal.lost:
            problems.append(f"journal: full, {journal.lost} events lost")
        if journal.corrupt:
            problems.append(
                f"journal: {journal.corrupt} corrupt records of crashed gateways"
            )
        return problems

    async def on_get_metrics(self, _: Request, resp: Response) -> None:
        resp.content_type = prometheus_client.CONTENT_TYPE_LATEST
        resp.data = prometheus_client.generate_latest()

    async def _router_answers(self) -> bool:
        try:
            answer = await self._client.get("/healthz", timeout=1.0)
        except httpx.HTTPError:
            return False
        return answer.is_success
