"""No connection is opened to an address that is forbidden for providers."""

import pytest

from libs.common.providers.destinations import Destinations
from libs.common.providers.resolver import AddressInfo, Resolver
from libs.common.settings.http_proxies import Egress
from services.gateway.upstream.connector import Dialer
from services.gateway.upstream.origin import Origin
from tests.support.clients.dials import (
    ALLOWED,
    FORBIDDEN,
    NAME,
    REBOUND,
    Rebinding,
    at,
    refusal,
    says_hello,
)
from tests.support.clients.sockets import echo, visited
from tests.support.upstreams.egress import running_proxy

pytestmark = pytest.mark.asyncio
UPSTREAM = "https://api.openai.com/v1"
REFUSAL = b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n"


async def test_dns_rebinding_between_check_and_connect() -> None:
    names = Rebinding()
    async with (
        visited(echo, ALLOWED) as good,
        visited(echo, FORBIDDEN, port=good.port) as bad,
    ):
        dialer = Dialer(resolver=names.resolver, destinations=names.rules)
        origin = Origin("http", REBOUND, good.port)
        for _ in range(5):
            (await says_hello(dialer, origin)).abort()
            assert "metadata service" in await refusal(dialer, origin)
        # One lookup per dial: the checked address is the dialed one.
        assert names.asked == 10
        assert (good.come, bad.come) == (5, 0)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "::ffff:127.0.0.1"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_our_own_ports_are_not_dialled(scheme: str, host: str) -> None:
    async with visited(echo) as visits:
        rules = Destinations(UPSTREAM, listening=frozenset({visits.port}))
        dialer = Dialer(destinations=rules)
        said = await refusal(dialer, at(visits, scheme, host))
        assert "one of this stack's own ports" in said
        assert visits.come == 0


async def test_private_addresses_can_be_forbidden_but_for_the_upstream() -> None:
    async with visited(echo) as visits:
        base = f"http://127.0.0.1:{visits.port}/v1"
        for upstream, reached in ((UPSTREAM, 0), (base, 1)):
            dialer = Dialer(destinations=Destinations(upstream, private=False))
            if reached:
                (await says_hello(dialer, at(visits))).abort()
            else:
                assert "is private" in await refusal(dialer, at(visits))
            assert visits.come == reached


async def test_what_no_rule_forbids_is_dialled_beside_what_one_does() -> None:
    async with visited(echo) as visits:

        async def look_up(_: str, port: int) -> list[AddressInfo]:
            return [
                (2, 1, 6, "", ("169.254.169.254", port)),  # skipped
                (2, 1, 6, "", ("127.0.0.1", port)),
            ]

        resolver = Resolver(look_up)
        dialer = Dialer(resolver=resolver, destinations=Destinations(UPSTREAM))
        transport = await says_hello(dialer, at(visits, host=NAME))
        assert transport.get_extra_info("peername")[0] == "127.0.0.1"
        transport.abort()


async def test_a_proxy_is_not_asked_for_a_forbidden_address() -> None:
    async with running_proxy(REFUSAL) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        egress = Egress.read({"HTTPS_PROXY": url, "HTTP_PROXY": url})
        # The operator's proxy may have any address.
        rules = Destinations(UPSTREAM, private=False)
        dialer = Dialer(egress, destinations=rules)
        for host in ("169.254.169.254", "2852039166", "metadata.google.internal"):
            for scheme in ("http", "https"):
                said = await refusal(dialer, Origin(scheme, host, 443))
                assert "the provider's address is" in said
        assert proxy.lines == []
        await refusal(dialer, Origin("https", NAME, 443))
        assert proxy.lines == ["CONNECT api.test:443 HTTP/1.1"]
