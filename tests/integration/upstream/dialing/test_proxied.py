"""Connections through a real proxy."""

from pathlib import Path

import pytest

from libs.common.runtime.tls import resuming_context
from libs.common.settings.http_proxies import Egress
from services.gateway.upstream.connector import Dialer
from services.gateway.upstream.origin import Origin
from services.gateway.upstream.tunnel import forwarded_head
from tests.support.clients.dials import NAME, Talk, at, refusal, says_hello
from tests.support.clients.sockets import echo, silence, visited
from tests.support.databases.certificates import Authority, make_authority
from tests.support.processes.ports import free_port
from tests.support.processes.waiting import eventually
from tests.support.upstreams.egress import EgressProxy, running_proxy

pytestmark = pytest.mark.asyncio


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path)


def through(proxy: EgressProxy, at_proxy: str = "http://us:hush@127.0.0.1") -> Egress:
    url = f"{at_proxy}:{proxy.port}"
    return Egress.read({"HTTPS_PROXY": url, "HTTP_PROXY": url})


async def test_https_goes_through_a_tunnel(authority: Authority) -> None:
    tls = authority.server(NAME)
    async with visited(echo, tls=tls) as visits, running_proxy() as proxy:
        dialer = Dialer(through(proxy), resuming_context(authority.file))
        (await says_hello(dialer, at(visits, "https", NAME))).abort()

        (head,) = proxy.heads
        assert head.startswith(b"CONNECT api.test:%d HTTP/1.1\r\n" % visits.port)
        assert b"proxy-authorization: Basic dXM6aHVzaA==\r\n" in head
        await eventually(visits.all_gone)


async def test_a_proxy_that_speaks_tls_itself(authority: Authority) -> None:
    tls, proxys = authority.server(NAME), authority.server("127.0.0.1")
    async with visited(echo, tls=tls) as visits, running_proxy(tls=proxys) as proxy:
        egress = through(proxy, "https://127.0.0.1")
        dialer = Dialer(egress, resuming_context(authority.file))
        (await says_hello(dialer, at(visits, "https", NAME))).abort()
        assert proxy.lines == [f"CONNECT api.test:{visits.port} HTTP/1.1"]


async def test_plain_http_is_forwarded() -> None:
    async with visited(echo) as visits, running_proxy() as proxy:
        dialer, origin = Dialer(through(proxy)), at(visits, host=NAME)
        leads = dialer.forwarder(origin)
        assert leads is not None
        transport, talk = await dialer.dial(origin, Talk, 5)
        assert isinstance(talk, Talk)
        head = b"POST /v1/x HTTP/1.1\r\nhost: api.test\r\n\r\n"
        transport.write(forwarded_head(head, leads, origin))

        async def echoed() -> bool:
            return b"POST /v1/x HTTP/1.1" in talk.heard

        await eventually(echoed)
        assert proxy.lines == [f"POST http://api.test:{visits.port}/v1/x HTTP/1.1"]
        transport.abort()


async def test_this_machine_is_reached_without_the_proxy() -> None:
    async with visited(echo) as visits, running_proxy() as proxy:
        dialer, origin = Dialer(through(proxy)), at(visits)
        (await says_hello(dialer, origin)).abort()
        assert proxy.heads == []
        assert dialer.forwarder(origin) is None


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\nhush", "the proxy refused with 403"),
        (b"HTTP/1.1 407 Who are you\r\n\r\n", "the proxy refused with 407"),
        (b"SSH-2.0-x\r\n\r\n", "the proxy sent no answer to CONNECT"),
        (b"HTTP/1.1 200 " + b"x" * 20_000, "the proxy sent no answer to CONNECT"),
        (
            b"HTTP/1.1 200 OK\r\n\r\nmore",
            "the proxy sent more than its answer to CONNECT",
        ),
        (b"", "the proxy closed the connection"),
    ],
    ids=["403", "407", "no HTTP", "endless", "more", "closed"],
)
async def test_a_proxy_that_does_not_lead_there(answer: bytes, cause: str) -> None:
    async with running_proxy(answer) as proxy:
        said = await refusal(Dialer(through(proxy)), Origin("https", NAME, 443))
        assert said == cause


async def test_a_proxy_that_does_not_answer() -> None:
    async with visited(silence) as visits:
        egress = Egress.read({"HTTPS_PROXY": f"127.0.0.1:{visits.port}"})
        said = await refusal(Dialer(egress), Origin("https", NAME, 443), 1)
        assert said == "asking the proxy took too long"
        await eventually(visits.all_gone)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_not_there(scheme: str) -> None:
    url = f"http://us:hush@127.0.0.1:{free_port()}"
    egress = Egress.read({"HTTPS_PROXY": url, "HTTP_PROXY": url})
    said = await refusal(Dialer(egress), Origin(scheme, NAME, 443))
    assert said == "the proxy cannot be used: connecting failed: Connection refused"


async def test_a_wrong_certificate_behind_a_proxy(authority: Authority) -> None:
    tls = authority.server("other.test")
    async with visited(echo, tls=tls) as visits, running_proxy() as proxy:
        dialer = Dialer(through(proxy), resuming_context(authority.file))
        said = await refusal(dialer, at(visits, "https", NAME))
        assert said.startswith("the TLS handshake failed: Hostname mismatch")
