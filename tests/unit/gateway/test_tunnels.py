"""What a proxy is told."""

import pytest

from libs.common.egress import Egress, Proxy
from services.gateway.origins import Origin
from services.gateway.tunnels import connect_head, forwarded_head

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
