import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry, Counter

from libs.common.runtime.probes import Readiness, serve_probes

pytestmark = pytest.mark.asyncio


class Service:
    """A service whose readiness a test sets."""

    def __init__(self) -> None:
        self.readiness = Readiness(ok=True)
        self.port = 0

    async def ready(self) -> Readiness:
        return self.readiness

    async def get(self, path: str, method: str = "GET") -> httpx.Response:
        async with httpx.AsyncClient() as client:
            return await client.request(method, f"http://127.0.0.1:{self.port}{path}")

    async def send(self, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer


@pytest_asyncio.fixture
async def service() -> AsyncIterator[Service]:
    registry = CollectorRegistry()
    Counter("seen", "A counter", registry=registry).inc(3)
    service = Service()
    server = await serve_probes("127.0.0.1", 0, service.ready, registry)
    service.port = server.sockets[0].getsockname()[1]
    yield service
    server.close()
    await server.wait_closed()


async def test_alive(service: Service) -> None:
    answer = await service.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


@pytest.mark.parametrize(
    ("readiness", "status", "word"),
    [
        pytest.param(Readiness(True), 200, "ready", id="ready"),
        pytest.param(Readiness(True, ("sql",)), 200, "degraded", id="degraded"),
        pytest.param(Readiness(False, ("sql",)), 503, "unavailable", id="not ready"),
    ],
)
async def test_ready(
    service: Service, readiness: Readiness, status: int, word: str
) -> None:
    service.readiness = readiness
    answer = await service.get("/readyz?verbose")
    assert answer.status_code == status
    assert answer.json() == {
        "status": word,
        "degraded": list(readiness.degraded),
        "details": {},
    }


async def test_metrics(service: Service) -> None:
    answer = await service.get("/metrics")
    assert "seen_total 3.0" in answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")


async def test_anything_else_is_refused(service: Service) -> None:
    assert (await service.get("/")).status_code == 404
    assert (await service.get("/healthz", "POST")).status_code == 405


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET /healthz", id="cut off"),
        pytest.param(b"x" * 20_000, id="endless line"),
        pytest.param(b"", id="nothing"),
    ],
)
async def test_what_is_no_request_is_closed_on(service: Service, data: bytes) -> None:
    with contextlib.suppress(ConnectionResetError):  # closed before all was read
        assert await service.send(data) == b""
    assert (await service.get("/healthz")).status_code == 200


async def test_words_that_are_no_request_line(service: Service) -> None:
    assert (await service.send(b"hello\r\n\r\n")).startswith(b"HTTP/1.1 405")
