"""A gateway that connects through an HTTP proxy to an upstream with a private CA."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from time import monotonic

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from tests.support.clients.sockets import Visits, relay_to, silence, visited
from tests.support.databases.certificates import Authority, make_authority
from tests.support.databases.valkey import empty
from tests.support.processes.ports import free_port
from tests.support.processes.stack import Stack, gateway_stack
from tests.support.upstreams.egress import EgressProxy, running_proxy

# One gateway serves the module; each test begins with an empty Redis.
pytestmark = pytest.mark.asyncio(loop_scope="module")
ASK = {"model": "gpt-5.5", "input": "Say hello"}
NAME = "api.test"  # hosts of this machine bypass proxies
CONNECT_S = 5.0  # one test waits for it; no other connection takes that long


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxy() -> AsyncIterator[EgressProxy]:
    async with running_proxy() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing(
    valkey_server: str,
    tmp_path_factory: pytest.TempPathFactory,
    proxy: EgressProxy,
    authority: Authority,
) -> AsyncIterator[Stack]:
    empty(valkey_server)
    url = f"http://us:hush@127.0.0.1:{proxy.port}"
    settings = {
        "HTTPS_PROXY": url,
        "HTTP_PROXY": url,
        "PROXY_UPSTREAM_CA_FILE": str(authority.file),
        "PROXY_CONNECT_TIMEOUT_SECONDS": str(CONNECT_S),
        "PROXY_MAX_ATTEMPTS": "1",
    }
    folder = tmp_path_factory.mktemp("gateway")
    async with gateway_stack(valkey_server, folder, **settings) as stack:
        yield stack
    log = (folder / "gateway.log").read_text()
    assert "hush" not in log
    assert "dXM6aHVzaA" not in log


@pytest_asyncio.fixture(loop_scope="module")
async def stack(standing: Stack, valkey: str, proxy: EgressProxy) -> Stack:
    await standing.reset()
    proxy.heads.clear()
    return standing


@pytest.fixture(autouse=True)
def open_proxy(proxy: EgressProxy) -> Iterator[None]:
    yield
    proxy.refusal = None


async def leads_to(stack: Stack, base_url: str) -> None:
    """From now on all keys belong to an upstream at `base_url`."""
    stack.environ["PROXY_UPSTREAM_BASE_URL"] = base_url
    await stack.publish("moved")


@asynccontextmanager
async def tls_upstream(
    stack: Stack, authority: Authority, name: str = NAME, *, expired: bool = False
) -> AsyncIterator[Visits]:
    """The simulated upstream at https://api.test, with a certificate for `name`."""
    tls = authority.server(name, expired=expired)
    async with visited(relay_to(stack.simulator.port), tls=tls) as visits:
        await leads_to(stack, f"https://{NAME}:{visits.port}/v1")
        yield visits


async def asked(stack: Stack) -> httpx.Response:
    async with httpx.AsyncClient(timeout=20) as client:
        return await client.post(f"{stack.url}/responses", json=ASK)


async def socket_answers(stack: Stack) -> str:
    """The type of the last frame of a request over a socket."""
    url = stack.url.replace("http", "ws", 1) + "/responses"
    async with connect(url, proxy=None, compression=None) as opened:
        await opened.send(json.dumps({"type": "response.create", **ASK}))
        kind = ""
        while kind not in ("response.completed", "response.failed", "error"):
            kind = json.loads(await opened.recv())["type"]
        return kind


async def test_https_goes_through_one_tunnel_that_is_kept(
    stack: Stack, proxy: EgressProxy, authority: Authority
) -> None:
    async with tls_upstream(stack, authority) as visits:
        for _ in range(3):
            assert (await asked(stack)).status_code == 200
        assert proxy.lines == [f"CONNECT {NAME}:{visits.port} HTTP/1.1"]


async def test_sockets_go_through_the_tunnel_too(
    stack: Stack, proxy: EgressProxy, authority: Authority
) -> None:
    async with tls_upstream(stack, authority) as visits:
        assert await socket_answers(stack) == "response.completed"
        assert proxy.lines == [f"CONNECT {NAME}:{visits.port} HTTP/1.1"]


async def test_plain_http_is_forwarded_by_the_proxy(
    stack: Stack, proxy: EgressProxy
) -> None:
    port = stack.simulator.port
    await leads_to(stack, f"http://{NAME}:{port}/v1")
    assert (await asked(stack)).status_code == 200
    assert proxy.lines == [f"POST http://{NAME}:{port}/v1/responses HTTP/1.1"]
    assert b"\r\nproxy-authorization: Basic dXM6aHVzaA==\r\n" in proxy.heads[0]
    assert await socket_answers(stack) == "response.completed"
    assert proxy.lines[1:] == [f"CONNECT {NAME}:{port} HTTP/1.1"]


async def test_this_machine_is_reached_directly(
    stack: Stack, proxy: EgressProxy
) -> None:
    assert (await asked(stack)).status_code == 200
    assert proxy.heads == []


async def test_an_upstream_with_ipv6_only(
    stack: Stack, proxy: EgressProxy, authority: Authority
) -> None:
    relay, tls = relay_to(stack.simulator.port), authority.server("::1")
    async with visited(relay, "::1", tls) as visits:
        await leads_to(stack, f"https://[::1]:{visits.port}/v1")
        assert (await asked(stack)).status_code == 200
        assert proxy.heads == []


@pytest.mark.parametrize(
    ("name", "expired", "cause"),
    [
        (NAME, True, "the TLS handshake failed: certificate has expired"),
        ("other.test", False, "the TLS handshake failed: Hostname mismatch"),
    ],
)
async def test_a_certificate_that_does_not_do_is_named(
    stack: Stack, authority: Authority, name: str, expired: bool, cause: str
) -> None:
    async with tls_upstream(stack, authority, name, expired=expired):
        await is_unreachable(stack, cause)


async def test_a_handshake_that_hangs_ends_in_time(stack: Stack) -> None:
    async with visited(silence) as visits:
        await leads_to(stack, f"https://{NAME}:{visits.port}/v1")
        began = monotonic()
        await is_unreachable(stack, "the TLS handshake took too long")
        assert monotonic() - began >= CONNECT_S


async def test_a_proxy_that_refuses_is_named(stack: Stack, proxy: EgressProxy) -> None:
    proxy.refusal = b"HTTP/1.1 407 Who are you\r\n\r\n"
    await leads_to(stack, f"https://{NAME}:{free_port()}/v1")
    await is_unreachable(stack, "the proxy refused with 407")


async def is_unreachable(stack: Stack, cause: str) -> None:
    answer = await asked(stack)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (502, "upstream_unreachable")
    assert cause in error["message"]
    assert "hush" not in error["message"]
    row = await stack.request(answer.headers["x-proxy-request-id"])
    assert cause in row["error_message"]
