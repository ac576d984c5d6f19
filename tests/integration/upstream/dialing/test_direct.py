"""Direct connections to servers of every kind."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from libs.common.providers.resolver import AddressInfo, Resolver
from libs.common.runtime.tls import resuming_context
from services.gateway.upstream.connector import Dialer
from services.gateway.upstream.errors import NoFreeConnection
from services.gateway.upstream.origin import Origin
from tests.support.clients.dials import NAME, Talk, at, here, refusal, says_hello
from tests.support.clients.sockets import echo, silence, unanswering, visited
from tests.support.databases.certificates import Authority, make_authority
from tests.support.processes.ports import free_port
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path)


async def test_plain_and_kept_alive() -> None:
    async with visited(echo) as visits:
        transport = await says_hello(Dialer(), at(visits))
        connected = transport.get_extra_info("socket")
        assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.abort()


async def test_a_host_that_speaks_ipv6_only() -> None:
    async with visited(echo, "::1") as visits:
        (await says_hello(Dialer(), at(visits, host="::1"))).abort()


async def test_the_next_address_is_taken_when_the_first_refuses() -> None:
    async with visited(echo) as visits:
        dialer = Dialer(resolver=here(free_port(), visits.port))
        (await says_hello(dialer, at(visits, host=NAME))).abort()


async def test_the_next_address_is_tried_beside_one_that_does_not_answer() -> None:
    with unanswering() as port:
        async with visited(echo) as visits:
            dialer = Dialer(resolver=here(port, visits.port))
            (await says_hello(dialer, at(visits, host=NAME))).abort()


async def test_tls_with_a_ca_of_ones_own(authority: Authority) -> None:
    async with visited(echo, tls=authority.server("localhost")) as visits:
        dialer = Dialer(context=resuming_context(authority.file))
        transport = await says_hello(dialer, at(visits, "https", "localhost"))
        assert transport.get_extra_info("ssl_object").version() == "TLSv1.3"
        transport.abort()


async def test_tls_with_an_address_in_the_certificate(authority: Authority) -> None:
    async with visited(echo, tls=authority.server("127.0.0.1")) as visits:
        dialer = Dialer(context=resuming_context(authority.file))
        (await says_hello(dialer, at(visits, "https"))).abort()


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_next_connection_resumes_the_session(
    authority: Authority, newest: ssl.TLSVersion
) -> None:
    tls = authority.server("localhost")
    tls.maximum_version = newest
    async with visited(echo, tls=tls) as visits:
        dialer = Dialer(context=resuming_context(authority.file))
        resumed = []
        for _ in range(3):
            transport = await says_hello(dialer, at(visits, "https", "localhost"))
            resumed.append(transport.get_extra_info("ssl_object").session_reused)
            transport.abort()
        assert resumed == [False, True, True]


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_handshakes_side_by_side_resume_what_is_whole(
    authority: Authority, newest: ssl.TLSVersion
) -> None:
    """A session is only available after its own handshake is complete."""
    tls = authority.server("localhost")
    tls.maximum_version = newest
    async with visited(echo, tls=tls) as visits:
        dialer = Dialer(context=resuming_context(authority.file))
        origin = at(visits, "https", "localhost")
        for _ in range(2):
            dials = [says_hello(dialer, origin) for _ in range(20)]
            transports = await asyncio.gather(*dials)
            resumed = [
                t.get_extra_info("ssl_object").session_reused for t in transports
            ]
            for transport in transports:
                transport.abort()
        assert all(resumed)  # of the second time


@pytest.mark.parametrize(
    ("name", "expired", "trusted", "cause"),
    [
        ("localhost", False, False, "unable to get local issuer certificate"),
        ("localhost", True, True, "certificate has expired"),
        ("other.test", False, True, "Hostname mismatch, certificate is not valid for"),
    ],
)
async def test_a_certificate_that_does_not_do(
    authority: Authority, name: str, expired: bool, trusted: bool, cause: str
) -> None:
    async with visited(echo, tls=authority.server(name, expired=expired)) as visits:
        context = resuming_context(authority.file if trusted else None)
        said = await refusal(Dialer(context=context), at(visits, "https", "localhost"))
        assert said.startswith("the TLS handshake failed: ")
        assert cause in said


async def test_no_tls_there() -> None:
    async def plain(r: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
        await r.read(100)
        w.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await w.drain()

    async with visited(plain) as visits:
        said = await refusal(Dialer(), at(visits, "https"))
        assert said == "the TLS handshake failed: wrong version number"


async def test_closed_instead_of_a_handshake() -> None:
    async def closes(_r: asyncio.StreamReader, _w: asyncio.StreamWriter) -> None:
        return

    async with visited(closes) as visits:
        said = await refusal(Dialer(), at(visits, "https"))
        assert said.startswith("the TLS handshake failed: ")


async def test_a_handshake_that_hangs_ends_in_time() -> None:
    async with visited(silence) as visits:
        said = await refusal(Dialer(), at(visits, "https"), within_s=1)
        assert said == "the TLS handshake took too long"
        await eventually(visits.all_gone)


async def test_connecting_ends_in_time() -> None:
    with unanswering() as port:
        said = await refusal(Dialer(), Origin("http", "127.0.0.1", port), 0.3)
        assert said == "connecting took too long"


async def test_nobody_listens() -> None:
    said = await refusal(Dialer(), Origin("http", "127.0.0.1", free_port()))
    assert said == "connecting failed: Connection refused"


async def test_a_name_that_nobody_has() -> None:
    async def look_up(_host: str, _port: int) -> list[AddressInfo]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    said = await refusal(Dialer(resolver=Resolver(look_up)), Origin("http", NAME, 80))
    assert said == "looking up its host failed: Name or service not known"


async def test_a_machine_that_has_no_socket_left_does_not_blame_the_upstream() -> None:
    async def look_up(_host: str, _port: int) -> list[AddressInfo]:
        raise OSError(errno.EMFILE, "hush")

    with pytest.raises(NoFreeConnection, match="Too many open files"):
        await Dialer(resolver=Resolver(look_up)).dial(Origin("http", NAME, 80), Talk, 1)


async def test_a_dial_given_up_leaves_nothing_open() -> None:
    async with visited(silence) as visits:
        dialling = asyncio.ensure_future(Dialer().dial(at(visits, "https"), Talk, 30))

        async def come() -> bool:
            return visits.come == 1

        await eventually(come)
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling
        await eventually(visits.all_gone)


def counted(asked: list[str]) -> Callable[[str, int], Awaitable[list[AddressInfo]]]:
    async def look_up(host: str, _port: int) -> list[AddressInfo]:
        asked.append(host)
        await asyncio.sleep(0)
        raise socket.gaierror(socket.EAI_AGAIN, "try later")

    return look_up


async def test_dials_given_up_at_any_moment_leave_the_others_alone(
    authority: Authority,
) -> None:
    """If the socket were closed beneath its transport, another would get its number."""
    async with visited(echo, tls=authority.server("localhost")) as visits:
        dialer = Dialer(context=resuming_context(authority.file))
        origin = at(visits, "https", "localhost")
        for turns in range(1, 40):
            dials = [asyncio.ensure_future(dialer.dial(origin, Talk, 5)) for _ in "ab"]
            for _ in range(turns):
                await asyncio.sleep(0)
            dials[0].cancel()
            (await says_hello(dialer, origin)).abort()
            for done in await asyncio.gather(*dials, return_exceptions=True):
                if isinstance(done, BaseException):
                    assert isinstance(done, asyncio.CancelledError)
                else:
                    done[0].abort()
        await eventually(visits.all_gone)


async def test_those_who_ask_together_share_a_lookup() -> None:
    asked: list[str] = []
    resolver = Resolver(counted(asked))
    finds = [asyncio.ensure_future(resolver.find(NAME, 443)) for _ in range(3)]
    await asyncio.sleep(0)
    finds[0].cancel()
    results = await asyncio.gather(*finds, return_exceptions=True)

    assert [type(r) for r in results[1:]] == [socket.gaierror] * 2
    assert asked == [NAME]
    with pytest.raises(socket.gaierror):
        await resolver.find(NAME, 443)
    assert asked == [NAME, NAME]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_an_address_needs_no_lookup(address: str) -> None:
    asked: list[str] = []
    (found,) = await Resolver(counted(asked)).find(address, 443)
    assert found[4][:2] == (address, 443)
    assert asked == []
