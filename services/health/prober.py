"""Checks all resources on a schedule with jitter. Only the leader does so."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import httpx
import structlog
from prometheus_client import Counter, Gauge, Histogram

from libs.common.contracts.catalogue import Catalogue, HealthState, Resource
from libs.common.errors import NoCatalogue, RedisAway
from libs.common.providers.credentials import Credentials
from libs.common.providers.key_echoes import SentKey
from libs.common.providers.key_headers import key_header
from libs.common.redis.leader import Leadership
from libs.common.runtime.lifecycle import wait_for_stop
from libs.common.runtime.service_gauges import REDIS_UP
from libs.common.upstream_answers.verdicts import Verdict
from services.health.verdict import account_of, ask

log = structlog.get_logger()

TICK_S = 0.5  # several times per lease
AT_ONCE = 32  # concurrent checks
CHECKS = Counter("proxy_health_checks_total", "Checks by verdict.", ["verdict"])
SECONDS = Histogram("proxy_health_check_seconds", "Duration of answered checks.")
LEADS = Gauge(
    "proxy_health_leader", "1 if this process checks the resources, 0 if it stands by."
)
LAST_ROUND = Gauge(
    "proxy_health_last_round_timestamp_seconds",
    "Unix time when this process last had checked all resources.",
)


class Verdicts(Protocol):
    async def catalogue(self) -> Catalogue: ...

    async def verdict(self, resource_id: str, verdict: Verdict) -> HealthState: ...

    async def learn_account(self, resource_id: str, account_id: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Check:
    """The result of a check of a resource."""

    resource_id: str
    health: HealthState
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """The request of a check: GET `path` below the base URL, with a timeout."""

    path: str
    timeout_s: float


class Prober:
    """Sends checks to resources and reports the verdicts to the routing functions."""

    def __init__(
        self,
        routing: Verdicts,
        client: httpx.AsyncClient,
        request: CheckRequest,
        credentials: Credentials,
    ) -> None:
        self._routing = routing
        self._client = client
        self._request = request
        self._credentials = credentials
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def check_all(self) -> list[Check]:
        """Check all resources once. Raises `RedisAway` or `NoCatalogue`."""
        catalogue = await self._routing.catalogue()
        checks = [self._check(resource) for resource in catalogue.resources]
        return list(await asyncio.gather(*checks))

    async def _check(self, resource: Resource) -> Check:
        async with self._at_once:
            verdict = await self._ask(resource)
        CHECKS.labels(verdict.kind).inc()
        health = await self._routing.verdict(resource.id, verdict)
        log.debug(
            "checked a resource",
            action="resource_checked",
            resource=resource.id,
            verdict=verdict.kind,
            health=health,
        )
        return Check(resource.id, health, verdict)

    async def _ask(self, resource: Resource) -> Verdict:
        key = self._credentials.key_of(resource)
        if key is None:
            return Verdict(kind="neutral", cause="its key cannot be resolved here")
        sent = SentKey(key)
        header = key_header(resource.auth_type, key)
        url = f"{resource.base_url}/{self._request.path}"
        answer, verdict = await ask(
            self._client, url, header, sent, self._request.timeout_s
        )
        if answer is None:
            return verdict
        SECONDS.observe((verdict.latency_ms or 0) / 1000)
        account = account_of(answer, sent)
        if account is not None:  # also for a key that replaced another one
            await self._routing.learn_account(resource.id, account)
        return verdict


class Schedule:
    """Runs a round of checks when this process becomes the leader, when the catalogue
    changes or reappears, and at each interval with 10 % jitter. The lease is renewed
    during a long round."""

    def __init__(
        self,
        check_all: Callable[[], Awaitable[Sequence[Check]]],
        leadership: Leadership,
        version: Callable[[], Awaitable[str | None]],
        interval_s: float,
    ) -> None:
        self._check_all = check_all
        self._leadership = leadership
        self._version = version
        self._interval_s = interval_s
        self._due_at = 0.0
        self._checked: str | None = None  # version of the catalogue in the last round
        self._round: asyncio.Task[None] | None = None
        self._away = False  # Redis is unavailable, and this was logged
        self.leads = False

    async def run(self, stop: asyncio.Event) -> None:
        tick_s = min(TICK_S, self._interval_s)
        try:
            while not stop.is_set():
                await self._tick(asyncio.get_running_loop().time())
                await wait_for_stop(stop, tick_s)
        finally:
            if self._round is not None:
                self._round.cancel()

    async def _tick(self, now: float) -> None:
        try:
            self.leads = await self._leadership.hold()
            version = await self._version() if self.leads else None
            self._note_redis(None)
        except RedisAway as cause:
            self.leads, version = False, None
            self._note_redis(cause)
        if version is None:
            self._checked = None
        elif self._due(now, version):
            self._checked = version
            jitter = random.uniform(0.9, 1.1)  # noqa: S311 - not for secrets
            self._due_at = now + self._interval_s * jitter
            self._round = asyncio.create_task(self._check())

    def _note_redis(self, cause: RedisAway | None) -> None:
        if cause is not None and not self._away:
            log.warning("Redis is unavailable", action="redis_away", cause=str(cause))
        elif cause is None and self._away:
            log.info("Redis is available again", action="redis_back")
        self._away = cause is not None
        REDIS_UP.set(not self._away)
        LEADS.set(self.leads)

    def _due(self, now: float, version: str) -> bool:
        if self._round is not None:
            if not self._round.done():
                return False
            self._round.result()  # an unexpected error ends the process
        return now >= self._due_at or version != self._checked

    async def _check(self) -> None:
        try:
            await self._check_all()
            LAST_ROUND.set_to_current_time()
        except (RedisAway, NoCatalogue) as cause:
            self._checked = None
            log.info(
                "skipped a round of checks", action="round_missed", cause=str(cause)
            )
