"""Serves `/healthz`, `/readyz` and `/metrics` for services without an HTTP server.

Supports GET only, one request per connection, and small requests."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

MAX_REQUEST_BYTES = 8 * 1024
TIMEOUT_S = 5.0  # for a client to send its request and read the response
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the service can do its job. `degraded` names impaired parts."""

    ok: bool
    degraded: tuple[str, ...] = ()
    details: dict[str, str] = field(default_factory=dict)


Ready = Callable[[], Awaitable[Readiness]]


@dataclass(frozen=True, slots=True)
class Answer:
    status: HTTPStatus
    content_type: str
    body: bytes

    def encode(self) -> bytes:
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\n"
            f"content-type: {self.content_type}\r\n"
            f"content-length: {len(self.body)}\r\n"
            "cache-control: no-store\r\n"
            "connection: close\r\n\r\n"
        )
        return head.encode() + self.body


async def serve_probes(
    host: str, port: int, ready: Ready, registry: CollectorRegistry = REGISTRY
) -> asyncio.Server:
    """Serve probes in the background until the returned server is closed."""
    probes = _Probes(ready, registry)
    return await asyncio.start_server(
        probes.serve, host, port, limit=MAX_REQUEST_BYTES, start_serving=True
    )


def readiness_body(readiness: Readiness) -> bytes:
    """The JSON body of `/readyz`; every service uses the same."""
    return json.dumps(
        {
            "status": _status_word(readiness),
            "degraded": list(readiness.degraded),
            "details": readiness.details,
        }
    ).encode()


def _status_word(readiness: Readiness) -> str:
    if not readiness.ok:
        return "unavailable"
    return "degraded" if readiness.degraded else "ready"


class _Probes:
    def __init__(self, ready: Ready, registry: CollectorRegistry) -> None:
        self._ready = ready
        self._registry = registry

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write((await self._answer(head)).encode())
                await writer.drain()
        except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError):
            pass  # the client is gone, slow, or does not speak HTTP: close
        finally:
            writer.close()

    async def _answer(self, head: bytes) -> Answer:
        method, target = _request_line(head)
        if method != "GET":
            return _problem(HTTPStatus.METHOD_NOT_ALLOWED)
        match target.partition("?")[0]:
            case "/healthz":
                return Answer(HTTPStatus.OK, JSON, b'{"status": "alive"}')
            case "/readyz":
                return await self._readyz()
            case "/metrics":
                body = generate_latest(self._registry)
                return Answer(HTTPStatus.OK, CONTENT_TYPE_PLAIN_0_0_4, body)
        return _problem(HTTPStatus.NOT_FOUND)

    async def _readyz(self) -> Answer:
        readiness = await self._ready()
        status = HTTPStatus.OK if readiness.ok else HTTPStatus.SERVICE_UNAVAILABLE
        return Answer(status, JSON, readiness_body(readiness))


def _request_line(head: bytes) -> tuple[str, str]:
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    return (words[0], words[1]) if len(words) == 3 else ("", "")


def _problem(status: HTTPStatus) -> Answer:
    body = json.dumps({"error": {"message": status.phrase}}).encode()
    return Answer(status, JSON, body)
