"""The CONNECT request to a proxy, and the meaning of its answer."""

import pytest

from libs.common.settings.http_proxies import Egress, Proxy
from services.gateway.upstream.errors import NotSent
from services.gateway.upstream.origin import Origin
from services.gateway.upstream.tunnel import (
    LARGEST_ANSWER,
    Tunnel,
    connect_head,
    forwarded_head,
)
from tests.support.memory.clock import timeless
from tests.support.memory.transports import Wire, cut_in_two

WHO = b"proxy-authorization: Basic dXM6aHVzaA==\r\n"


def proxy(url: str) -> Proxy:
    return Egress.read({"ALL_PROXY": url}).proxies["http"]


OPEN = proxy("http://proxy.corp:3128")
GUARDED = proxy("http://us:hush@proxy.corp:3128")


@pytest.mark.parametrize(
    ("via", "host", "expected"),
    [
        (OPEN, "api.test", b"CONNECT api.test:443 HTTP/1.1\r\nhost: api.test:443\r\n"),
        (OPEN, "fd00::1", b"CONNECT [fd00::1]:443 HTTP/1.1\r\nhost: [fd00::1]:443\r\n"),
        (
            GUARDED,
            "api.test",
            b"CONNECT api.test:443 HTTP/1.1\r\nhost: api.test:443\r\n" + WHO,
        ),
    ],
)
def test_a_tunnel_is_asked_for(via: Proxy, host: str, expected: bytes) -> None:
    head = connect_head(via, Origin("https", host, 443))
    assert head == expected + b"\r\n"


@pytest.mark.parametrize(("via", "who"), [(OPEN, b""), (GUARDED, WHO)])
def test_a_request_is_forwarded_by_its_whole_url(via: Proxy, who: bytes) -> None:
    head = b"POST /v1/x?y=/z HTTP/1.1\r\nhost: api.test:81\r\n\r\n"
    assert forwarded_head(head, via, Origin("http", "api.test", 81)) == (
        b"POST http://api.test:81/v1/x?y=/z HTTP/1.1\r\n"
        + who
        + b"host: api.test:81\r\n\r\n"
    )


# The proxy's answer ------------------------------------------------------------

OPENED = b"HTTP/1.1 200 Connection established\r\nx: y\r\n\r\n"


def asked() -> tuple[Tunnel, Wire]:
    tunnel = Tunnel(OPEN, Origin("https", "api.test", 443))
    wire = Wire(tunnel)
    assert wire.take() == connect_head(OPEN, Origin("https", "api.test", 443))
    return tunnel, wire


@timeless
async def test_a_tunnel_opens_wherever_the_answer_is_cut() -> None:
    for first, second in cut_in_two(OPENED):
        tunnel, wire = asked()
        wire.feed(first, second)
        await tunnel.opened()
        wire.feed(b"more")  # another protocol's, by then
        wire.hangs_up()


@timeless
async def test_an_answer_without_a_phrase_opens_a_tunnel() -> None:
    tunnel, wire = asked()
    wire.feed(b"HTTP/1.1 200\r\n\r\n")
    await tunnel.opened()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(
            b"HTTP/1.1 407 Authentication\r\n\r\n", "refused with 407", id="refused"
        ),
        pytest.param(b"HTTP/1.0 503\r\n\r\n", "refused with 503", id="bare"),
        pytest.param(b"SSH-2.0-x\r\n\r\n", "no answer to CONNECT", id="another"),
        pytest.param(b"HTTP/1.1 999 x\r\n\r\n", "no answer", id="an odd status"),
        pytest.param(b"x" * (LARGEST_ANSWER + 1), "no answer", id="endless"),
        pytest.param(OPENED + b"220 hello", "more than its answer", id="more"),
        pytest.param(None, "closed the connection", id="closed"),
    ],
)
@timeless
async def test_a_tunnel_that_does_not_open_says_why(
    answer: bytes | None, says: str
) -> None:
    tunnel, wire = asked()
    if answer is None:
        wire.hangs_up()
    else:
        wire.feed(answer)
        wire.hangs_up()  # the first word counts
    with pytest.raises(NotSent, match=says):
        await tunnel.opened()
