"""A gateway in front of a test's own upstream, and what is told of a request."""

import json
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import httpx

from libs.common.contracts.catalogue import Catalogue, ResourceState
from libs.common.settings.resources import resources_from_environment
from libs.simulator.faults.faults import parse_script
from libs.simulator.server import RunningSimulator
from tests.integration.proxy.faults.table import IN_A_MINUTE, MODEL, Client
from tests.support.processes.ports import free_port
from tests.support.processes.stack import KEYS, Stack, of_providers
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulated import events_in

FIRST, SECOND = list(KEYS)[:2]
# Choices are deterministic: the first resource before the next.
WEIGHTS = (1000.0, 100.0, 10.0, 1.0)
OF_A_KEY = "Rate limit reached for this key on tokens per min (TPM)."


@dataclass(frozen=True)
class Told:
    """An answer, its event in the ledger and its decisions."""

    client: Client
    event: dict[str, Any]
    decisions: list[dict[str, Any]]

    @property
    def chosen(self) -> list[str | None]:
        return [decision["resource_id"] for decision in self.decisions]

    @property
    def reasons(self) -> list[str]:
        return [decision["reason"] for decision in self.decisions]

    @property
    def causes(self) -> list[str | None]:
        return [decision.get("cause") for decision in self.decisions]


@dataclass
class Setup:
    """A gateway in front of this test's own upstream."""

    stack: Stack
    upstream: RunningSimulator
    http: httpx.AsyncClient

    async def keys(self, count: int, *, closed: int = 0) -> None:
        """Publish this many keys. `closed`: nothing listens at the address of the first
        ones."""
        given = of_providers(
            resources_from_environment(self.stack.environ, self.upstream.base_url)
        )
        nowhere = f"http://127.0.0.1:{free_port()}/v1"
        resources = tuple(
            resource.model_copy(
                update={
                    "weight": weight,
                    "base_url": nowhere if n < closed else resource.base_url,
                }
            )
            for n, (resource, weight) in enumerate(
                zip(given[:count], WEIGHTS, strict=False)
            )
        )
        version = f"faults-{next(self.stack.versions)}"
        await self.stack.routing.load_library()
        await self.stack.routing.publish(
            Catalogue(version=version, resources=resources), "published"
        )

        async def adopted() -> bool:
            ready = await self.http.get(f"{self.stack.origin}/readyz")
            return bool(ready.json()["catalogue"] == version)

        await eventually(adopted)

    def fault(self, fault: dict[str, Any], key: str = FIRST, **more: Any) -> None:
        """Every request with this key gets the fault, unless `more` limits it. A 429
        names the limit of the key, unless it has a message."""
        headers = dict(fault.get("headers", {}))
        if fault.get("status") == 429 and "code" not in fault:
            fault = {"message": OF_A_KEY, **fault}
        if headers.get("retry-after") == IN_A_MINUTE:
            headers["retry-after"] = formatdate(time.time() + 60, usegmt=True)
        scripted = {**fault, "headers": headers} if headers else fault
        self.upstream.state.faults.add(
            parse_script({"key": key, "fault": scripted, **more})
        )

    async def ask(
        self,
        *,
        stream: bool = False,
        model: str = MODEL,
        names_model: bool = True,
        **more: str,
    ) -> Told:
        url, end, body = self.stack.url, "whole", b""
        request = self.http.build_request("GET", f"{url}/models")
        if names_model:
            ask = {"model": model, "input": "hello", "stream": stream, **more}
            request = self.http.build_request("POST", f"{url}/responses", json=ask)
        answer = await self.http.send(request, stream=True)
        try:
            async for chunk in answer.aiter_bytes():
                body += chunk
        except httpx.RemoteProtocolError:
            end = "broken"
        finally:
            await answer.aclose()
        if stream and answer.status_code == 200:
            end = events_in(body.decode())[-1]["type"]
        return await self._told(answer, body, end)

    async def _told(self, answer: httpx.Response, body: bytes, end: str) -> Told:
        headers, failed = answer.headers, answer.status_code >= 400
        # Neither a fraction nor a date: Codex reads whole seconds only.
        wait = headers.get("retry-after")
        client = Client(
            status=answer.status_code,
            code=json.loads(body)["error"]["code"] if failed else None,
            retry_after=int(wait) if wait else None,
            attempts=int(headers["x-proxy-attempts"]),
            end=end,
        )
        request_id = headers["x-proxy-request-id"]
        event = await self.stack.request(request_id)
        decisions = await self.stack.decisions(request_id)
        made = [decision for decision in decisions if decision["resource_id"]]
        last = made[-1] if made else {}
        assert headers.get("x-proxy-resource-id") == last.get("resource_id")
        assert headers.get("x-proxy-reason") == last.get("reason")
        return Told(client, event, decisions)

    async def state(self, position: int = 0) -> ResourceState:
        return (await self.stack.routing.states())[position]

    async def health_events(self, resource: str = "openai-1") -> list[dict[str, Any]]:
        events = await self.stack.events("health")
        return [event for event in events if event["resource_id"] == resource]


def refused_by(told: Told, resource: str) -> str:
    """Why the last decision skipped a resource."""
    candidates = told.decisions[-1]["candidates"]
    (found,) = [c["refused"] for c in candidates if c["resource"] == resource]
    return str(found)
