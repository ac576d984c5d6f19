"""Which transport a check takes."""

import asyncio
import json
import re

import httpx
import pytest

from libs.common.providers.destinations import Destinations
from libs.common.providers.http_transport import AddressRefused, EgressTransport
from libs.common.providers.resolver import AddressInfo, CheckedResolver, Resolver
from libs.common.runtime.tls import client_context
from libs.common.settings.http_proxies import Egress
from services.health.verdict import of_error
from tests.support.clients.dials import ALLOWED, FORBIDDEN, REBOUND, Rebinding
from tests.support.clients.sockets import relay_to, visited
from tests.support.upstreams.egress import running_proxy

pytestmark = pytest.mark.asyncio
REFUSAL = b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n"

RULES = Destinations("https://api.openai.com/v1")


def resolver() -> CheckedResolver:
    return CheckedResolver(RULES)


async def test_through_the_proxy_where_one_leads_there() -> None:
    async with running_proxy(REFUSAL) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        egress = Egress.read({"HTTPS_PROXY": url, "HTTP_PROXY": url})
        transport = EgressTransport(egress, client_context(), resolver())
        async with httpx.AsyncClient(transport=transport) as client:
            answer = await client.get("http://api.test/v1/models")
            assert answer.status_code == 403
            with pytest.raises(httpx.ProxyError):
                await client.get("https://api.test/v1/models")
            async with visited(relay_to(proxy.port)) as direct:
                await client.get(f"http://127.0.0.1:{direct.port}/v1/models")
                assert direct.come == 1
        assert proxy.lines == [
            "GET http://api.test/v1/models HTTP/1.1",
            "CONNECT api.test:443 HTTP/1.1",
            "GET /v1/models HTTP/1.1",
        ]


async def test_dns_rebinding_between_check_and_connect() -> None:
    """For health checks and provider tests."""
    names = Rebinding()
    async with (
        visited(answering, ALLOWED) as good,
        visited(answering, FORBIDDEN, port=good.port) as bad,
    ):
        resolver = CheckedResolver(names.rules, names.resolver)
        transport = EgressTransport(Egress(), client_context(), resolver)
        url = f"http://{REBOUND}:{good.port}/v1/models"
        async with httpx.AsyncClient(transport=transport) as client:
            for _ in range(5):
                answer = await client.get(url)
                assert answer.json() == {"host": f"{REBOUND}:{good.port}"}
                with pytest.raises(AddressRefused, match="metadata") as refused:
                    await client.get(url)
                assert of_error(refused.value).cause == str(refused.value)
        assert (names.asked, good.come, bad.come) == (10, 5, 0)


async def test_a_proxy_is_not_asked_for_a_forbidden_address() -> None:
    async with running_proxy(REFUSAL) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        egress = Egress.read({"HTTPS_PROXY": url, "HTTP_PROXY": url})
        transport = EgressTransport(egress, client_context(), resolver())
        async with httpx.AsyncClient(transport=transport) as client:
            for host in ("169.254.169.254", "2852039166", "[fe80::1]", "metadata"):
                with pytest.raises(AddressRefused, match="the provider's address is"):
                    await client.get(f"http://{host}/v1/models")
        assert proxy.lines == []


async def test_the_next_address_is_taken_when_the_first_refuses() -> None:
    async with visited(answering) as visits:

        async def look_up(_: str, port: int) -> list[AddressInfo]:
            hosts = FORBIDDEN, "127.0.0.1"  # nobody listens at the first
            return [(2, 1, 6, "", (host, port)) for host in hosts]

        names = CheckedResolver(RULES, Resolver(look_up))
        transport = EgressTransport(Egress(), client_context(), names)
        async with httpx.AsyncClient(transport=transport) as client:
            answer = await client.get(f"http://api.test:{visits.port}/")
        assert answer.status_code == 200


async def test_a_name_that_is_not_found_is_no_connection() -> None:
    async def look_up(_: str, __: int) -> list[AddressInfo]:
        raise OSError("no such name")

    names = CheckedResolver(RULES, Resolver(look_up))
    transport = EgressTransport(Egress(), client_context(), names)
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get("http://api.test/")


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Record which host was requested, once."""
    head = await reader.readuntil(b"\r\n\r\n")
    host = re.search(rb"(?i)host: (\S+)", head)
    assert host is not None
    body = json.dumps({"host": host[1].decode()}).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
                 % (len(body), body))  # fmt: skip
    await writer.drain()
