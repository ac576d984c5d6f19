"""Active checks of every resource, on a schedule with jitter, by one prober at
a time."""

import asyncio
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import httpx
import structlog

from libs.common.contracts import Catalogue, HealthState, Resource, Verdict
from libs.common.errors import NoCatalogue, ProxyError, RedisAway
from libs.common.lifecycle import wait_for_stop
from libs.common.resources import resolve_credential
from services.health.verdict import of_answer, of_error

log = structlog.get_logger()

TICK_S = 0.5
AT_ONCE = 32  # checks under way together


class Leadership(Protocol):
    async def hold(self) -> bool: ...


class Verdicts(Protocol):
    async def catalogue(self) -> Catalogue: ...

    async def verdict(self, resource_id: str, verdict: Verdict) -> HealthState: ...


@dataclass(frozen=True, slots=True)
class Check:
    """A resource's check and what came of it."""

    resource_id: str
    health: HealthState
    verdict: Verdict


class Prober:
    """Asks each resource for its models and reports the verdict."""

    def __init__(
        self,
        routing: Verdicts,
        client: httpx.AsyncClient,
        path: str,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._routing = routing
        self._client = client
        self._path = path
        self._environ = environ
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def check_all(self) -> list[Check]:
        """One round. Raises `RedisAway` or `NoCatalogue`."""
        catalogue = await self._routing.catalogue()
        checks = [self._check(resource) for resource in catalogue.resources]
        return list(await asyncio.gather(*checks))

    async def _check(self, resource: Resource) -> Check:
        async with self._at_once:
            verdict = await self._ask(resource)
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
        try:
            key = resolve_credential(resource.credential, self._environ)
        except ProxyError as error:
            log.error(
                "no key for resource",
                action="credential_missing",
                resource=resource.id,
                cause=str(error),
            )
            return Verdict(kind="neutral", cause="its key cannot be resolved here")
        url = f"{resource.base_url}/{self._path}"
        started = perf_counter()
        try:
            answer = await self._client.get(
                url, headers={"authorization": f"Bearer {key}"}
            )
        except httpx.HTTPError as error:
            return of_error(error)
        return of_answer(answer, (perf_counter() - started) * 1000)


class Schedule:
    """When to probe: at once on becoming leader, when the catalogue changed,
    and every interval with a tenth of jitter."""

    def __init__(
        self, prober: Prober, leadership: Leadership, interval_s: float
    ) -> None:
        self._prober = prober
        self._leadership = leadership
        self._interval_s = interval_s
        self._due_at = 0.0
        self.leads = False

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self._tick()
            except (RedisAway, NoCatalogue) as cause:
                self.leads = False
                log.debug("no round", action="round_missed", cause=str(cause))
            await wait_for_stop(stop, TICK_S)

    async def _tick(self) -> None:
        self.leads = await self._leadership.hold()
        now = asyncio.get_running_loop().time()
        if self.leads and now >= self._due_at:
            await self._prober.check_all()
            jitter = random.uniform(0.9, 1.1)  # noqa: S311 - not for secrets
            self._due_at = now + self._interval_s * jitter
