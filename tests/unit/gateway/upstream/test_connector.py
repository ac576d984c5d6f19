"""Why a connection could not be made, in messages without addresses. Integration tests
cover sockets."""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable

import aiohappyeyeballs
import pytest

from libs.common.providers.resolver import AddressInfo, Resolver
from libs.common.settings.http_proxies import Egress
from services.gateway.upstream.connector import Dialer
from services.gateway.upstream.errors import NoFreeConnection, NotSent
from services.gateway.upstream.origin import Origin
from tests.support.memory.clock import clock, timeless

ORIGIN = Origin("https", "api.test", 443)
FOUND: list[AddressInfo] = [(2, 1, 6, "", ("192.0.2.1", 443))]


def dialer(
    answer: Exception | None = None, egress: dict[str, str] | None = None
) -> Dialer:
    async def look_up(host: str, port: int) -> list[AddressInfo]:
        if answer is not None:
            raise answer
        return FOUND

    return Dialer(Egress.read(egress or {}), resolver=Resolver(look_up))


async def why(dialing: Dialer, origin: Origin = ORIGIN) -> NotSent:
    with pytest.raises(NotSent) as caught:
        await dialing.dial(origin, asyncio.Protocol, 3.0)
    return caught.value


Connect = Callable[..., Awaitable[socket.socket]]


def failing(error: OSError) -> Connect:
    async def start_connection(*_: object, **__: object) -> socket.socket:
        raise error

    return start_connection


@timeless
async def test_a_host_that_is_not_found_is_said_so() -> None:
    missing = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    error = await why(dialer(missing))
    assert str(error) == "looking up its host failed: Name or service not known"


@timeless
async def test_a_lookup_takes_no_longer_than_dialing_may() -> None:
    async def hanging(host: str, port: int) -> list[AddressInfo]:
        await asyncio.get_running_loop().create_future()
        return FOUND

    began = clock().time()
    error = await why(Dialer(Egress.read({}), resolver=Resolver(hanging)))
    assert str(error) == "looking up its host took too long"
    assert clock().time() - began == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        pytest.param(
            ConnectionRefusedError(errno.ECONNREFUSED, "('192.0.2.1', 443)"), NotSent,
            "connecting failed: Connection refused", id="refused",
        ),
        pytest.param(
            OSError(errno.ENETUNREACH, "to 192.0.2.1"), NotSent,
            "connecting failed: Network is unreachable", id="no route",
        ),
        pytest.param(
            ConnectionResetError("by 192.0.2.1"), NotSent,
            "connecting failed: the connection was closed", id="closed",
        ),
        pytest.param(
            OSError("Multiple exceptions: 192.0.2.1"), NotSent,
            "connecting failed: no address answers", id="several",
        ),
        pytest.param(
            OSError(errno.EMFILE, "x"), NoFreeConnection,
            "connecting failed: Too many open files", id="ours: descriptors",
        ),
        pytest.param(
            OSError(errno.EADDRNOTAVAIL, "x"), NoFreeConnection,
            "connecting failed: Cannot assign requested address", id="ours: ports",
        ),
    ],
)  # fmt: skip
@timeless
async def test_a_failure_names_no_address_and_whose_it_is(
    monkeypatch: pytest.MonkeyPatch, error: OSError, kind: type[NotSent], says: str
) -> None:
    monkeypatch.setattr(aiohappyeyeballs, "start_connection", failing(error))
    told = await why(dialer())
    assert (type(told), str(told)) == (kind, says)


@pytest.mark.parametrize("scheme", ["http", "https"])
@timeless
async def test_a_proxy_that_cannot_be_reached_is_named_as_such(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    error = ConnectionRefusedError(errno.ECONNREFUSED, "x")
    monkeypatch.setattr(aiohappyeyeballs, "start_connection", failing(error))
    behind = dialer(egress={"ALL_PROXY": "http://us:hush@proxy.test:3128"})
    told = await why(behind, Origin(scheme, "api.test", 443))
    assert str(told).startswith("the proxy cannot be used: connecting failed")
    assert "hush" not in str(told)


@pytest.mark.parametrize(
    ("scheme", "proxied", "forwarded"),
    [("http", True, True), ("https", True, False)],
)
def test_plain_http_is_forwarded_and_https_tunnelled(
    scheme: str, proxied: bool, forwarded: bool
) -> None:
    behind = dialer(egress={"ALL_PROXY": "http://proxy.test:3128"})
    origin = Origin(scheme, "api.test", 80)
    assert (behind.proxy_for(origin) is not None) is proxied
    assert (behind.forwarder(origin) is not None) is forwarded


def test_without_a_proxy_nothing_is_forwarded() -> None:
    assert dialer().forwarder(Origin("http", "api.test", 80)) is None
