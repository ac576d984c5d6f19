"""Active checks of every resource, on a schedule with jitter, by one prober at
a time."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import httpx
import structlog
from prometheus_client import Counter, Histogram

from libs.common.contracts.catalogue import Catalogue, HealthState, Resource
from libs.common.contracts.verdicts import Verdict
from libs.common.errors import NoCatalogue, RedisAway
from libs.common.providers.credentials import Credentials
from libs.common.providers.key_echoes import SentKey
from libs.common.runtime.lifecycle import wait_for_stop
from services.health.verdict import account_of, of_answer, of_error, timed_out

log = structlog.get_logger()

TICK_S = 0.5  # a few times within the lease
AT_ONCE = 32  # checks under way together
CHECKS = Counter("proxy_health_checks_total", "Checks, by verdict.", ["verdict"])
SECONDS = Histogram("proxy_health_check_seconds", "Until a check was answered.")


class Leadership(Protocol):
    async def hold(self) -> bool: ...


class Verdicts(Protocol):
    async def catalogue(self) -> Catalogue: ...

    async def verdict(self, resource_id: str, verdict: Verdict) -> HealthState: ...

    async def learn_account(self, resource_id: str, account_id: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Check:
    """A resource's check and what came of it."""

    resource_id: str
    health: HealthState
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Question:
    """What a check asks: GET `path` below the base URL, answered in time."""

    path: str
    timeout_s: float


class Prober:
    """Asks each resource for its models and reports the verdict."""

    def __init__(
        self,
        routing: Verdicts,
        client: httpx.AsyncClient,
        question: Question,
        credentials: Credentials,
    ) -> None:
        self._routing = routing
        self._client = client
        self._question = question
        self._credentials = credentials
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def check_all(self) -> list[Check]:
        """One round. Raises `RedisAway` or `NoCatalogue`."""
        catalogue = await self._routing.catalogue()
        checks = [self._check(resource) for resource in catalogue.resources]
        return list(await asyncio.gather(*checks))

    async def _check(self, resource: Resource) -> Check:
        async with self._at_once:
            verdict = await self._ask(resource)
        CHECKS.labels(verdict.kind).inc()
        health = await self._routing.verdict(resource.id, verdict)
        log.debug(
            "checked",
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
        url = f"{resource.base_url}/{self._question.path}"
        started = perf_counter()
        try:
            # The whole of it: httpx bounds each read, and a drip feeds for ever.
            async with asyncio.timeout(self._question.timeout_s):
                answer = await self._client.get(
                    url, headers={"authorization": f"Bearer {key}"}
                )
        except TimeoutError:
            return timed_out()
        except httpx.HTTPError as error:
            return of_error(error)
        seconds = perf_counter() - started
        SECONDS.observe(seconds)
        account = account_of(answer, sent)
        if account is not None:  # also of a key that replaced another one
            await self._routing.learn_account(resource.id, account)
        return of_answer(answer, sent, seconds * 1000)


class Schedule:
    """When to probe: at once on becoming leader, when the catalogue changed or
    came back, and every interval with a tenth of jitter. A round that takes its
    time does not keep the lease from being renewed."""

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
        self._checked: str | None = None  # the catalogue of the last round
        self._round: asyncio.Task[None] | None = None
        self._away = False  # Redis is, and it was said
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
            log.warning("redis is away", action="redis_away", cause=str(cause))
        elif cause is None and self._away:
            log.info("redis is back", action="redis_back")
        self._away = cause is not None

    def _due(self, now: float, version: str) -> bool:
        if self._round is not None:
            if not self._round.done():
                return False
            self._round.result()  # what nobody expected ends the process
        return now >= self._due_at or version != self._checked

    async def _check(self) -> None:
        try:
            await self._check_all()
        except (RedisAway, NoCatalogue) as cause:
            self._checked = None
            log.info("no round", action="round_missed", cause=str(cause))
