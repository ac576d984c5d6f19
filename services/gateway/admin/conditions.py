"""What of a gateway is impaired now: for `/readyz`, the log and metrics."""

import asyncio
from collections.abc import Callable

import httpx
import structlog

from libs.common.runtime.conditions import Conditions
from services.gateway.auth.authenticator import Authenticator
from services.gateway.ledger.journal.delivery import JournalDelivery
from services.gateway.metrics import Family, Sample, register
from services.gateway.routing.catalogue import GatewayCatalogue
from services.gateway.scrape.scrape import Scrape

log = structlog.get_logger()

EVERY_S = 1.0
ROUTER_EVERY = 5  # looks between two requests to the router
ROUTER_TIMEOUT_S = 1.0
PARTS = (
    "redis", "key limits", "catalogue", "journal", "ledger", "recovery",
    "router", "keys",
)  # fmt: skip


class GatewayConditions:
    """Looks at the parts of a gateway."""

    def __init__(
        self,
        catalogue: GatewayCatalogue,
        delivery: JournalDelivery,
        redis_up: Callable[[], bool],
        router: httpx.AsyncClient,
        authenticator: Authenticator,
    ) -> None:
        self._catalogue = catalogue
        self._delivery = delivery
        self._redis_up = redis_up
        self._router = router
        self._authenticator = authenticator
        self._conditions = Conditions()
        self._router_answers = True
        register(
            Family(
                "proxy_degraded",
                "gauge",
                "1 while a part of the gateway is impaired.",
                ("part",),
                merge="max",
            ),
            self._samples,
        )

    async def run(self, scrape: Scrape) -> None:
        """Log what begins and ends, and publish metrics, each second."""
        looks = 0
        while True:
            looks += 1
            try:
                scrape.publish()
                if looks % ROUTER_EVERY == 0:
                    await self._ask_router()
                self._conditions.note(self._problems())
            except Exception:
                # Requests are served all the same.
                log.exception("looking at the gateway failed", action="look_failed")
            await asyncio.sleep(EVERY_S)

    @property
    def parts(self) -> tuple[str, ...]:
        """Impaired parts, as of the last look."""
        return self._conditions.parts

    async def now(self) -> dict[str, str]:
        """The problem of each impaired part."""
        await self._ask_router()
        return self._problems()

    def _problems(self) -> dict[str, str]:
        problems = {}
        if not self._redis_up():
            problems["redis"] = "redis: unreachable, routing from the last catalogue"
            if self._authenticator.limits:
                problems["key limits"] = (
                    "proxy keys: limits per minute are not enforced"
                )
        if self._catalogue.problem:
            problems["catalogue"] = f"redis: {self._catalogue.problem}"
        problems |= self._journal_problems()
        if not self._router_answers:
            problems["router"] = "router: unreachable"
        if not self._authenticator.ready:
            problems["keys"] = "proxy keys: not read yet"
        return problems

    def _journal_problems(self) -> dict[str, str]:
        journal, problems = self._delivery.journal, {}
        if journal.problem:
            problems["journal"] = journal.problem
        if journal.lost:
            problems["ledger"] = f"journal: full, {journal.lost} events lost"
        if journal.corrupt:
            problems["recovery"] = (
                f"journal: {journal.corrupt} corrupt records of crashed gateways"
            )
        return problems

    async def _ask_router(self) -> None:
        try:
            answer = await self._router.get("/healthz", timeout=ROUTER_TIMEOUT_S)
            self._router_answers = answer.is_success
        except httpx.HTTPError:
            self._router_answers = False

    def _samples(self) -> list[Sample]:
        impaired = self._conditions.parts
        return [((part,), [float(part in impaired)]) for part in PARTS]
