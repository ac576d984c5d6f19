"""Which proxy is used for which address."""

import pytest

from libs.common.errors import SettingError
from libs.common.settings.http_proxies import Egress

API = ("https", "api.openai.com", 443)
PLAIN = ("http", "models.corp", 8080)


@pytest.mark.parametrize(
    ("environ", "origin", "expected"),
    [
        pytest.param({}, API, None, id="nothing set"),
        pytest.param({"HTTPS_PROXY": "http://p:1"}, API, "p:1", id="https"),
        pytest.param({"HTTPS_PROXY": "http://p:1"}, PLAIN, None, id="https alone"),
        pytest.param({"HTTP_PROXY": "http://p:1"}, PLAIN, "p:1", id="http"),
        pytest.param({"HTTP_PROXY": "http://p:1"}, API, None, id="http alone"),
        pytest.param({"http_proxy": "http://p:1"}, PLAIN, "p:1", id="small letters"),
        pytest.param(
            {"https_proxy": "http://small:1", "HTTPS_PROXY": "http://large:1"},
            API, "small:1", id="small letters first",
        ),
        pytest.param(
            {"https_proxy": " ", "HTTPS_PROXY": "http://p:1"}, API, "p:1",
            id="empty is unset",
        ),
        pytest.param({"ALL_PROXY": "http://p:1"}, API, "p:1", id="all, https"),
        pytest.param({"all_proxy": "http://p:1"}, PLAIN, "p:1", id="all, http"),
        pytest.param(
            {"ALL_PROXY": "http://all:1", "HTTPS_PROXY": "http://own:1"},
            API, "own:1", id="the scheme's own first",
        ),
        pytest.param(
            {"ALL_PROXY": "socks5://x:1", "HTTPS_PROXY": "p:1", "HTTP_PROXY": "p:1"},
            API, "p:1", id="one that is not needed may be anything",
        ),
        pytest.param({"HTTPS_PROXY": "p:3128"}, API, "p:3128", id="no scheme"),
        pytest.param({"HTTPS_PROXY": "http://p"}, API, "p:80", id="no port"),
        pytest.param({"HTTPS_PROXY": "https://p"}, API, "p:443", id="TLS, no port"),
        pytest.param({"HTTPS_PROXY": "http://[fd00::1]:9"}, API, "fd00::1:9", id="v6"),
    ],
)  # fmt: skip
def test_the_proxy(
    environ: dict[str, str], origin: tuple[str, str, int], expected: str | None
) -> None:
    proxy = Egress.read(environ).proxy_for(*origin)

    assert (proxy and f"{proxy.host}:{proxy.port}") == expected


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "direct"),
    [
        ("", "a.corp", 443, False),
        ("*", "a.corp", 443, True),
        ("corp", "a.corp", 443, True),
        (".corp", "a.corp", 443, True),
        ("*.corp", "a.corp", 443, True),
        ("A.CORP", "a.corp", 443, True),
        ("a.corp", "A.corp.", 443, True),
        (".a.corp", "a.corp", 443, True),
        ("corp", "acorp", 443, False),
        ("a.corp", "b.corp", 443, False),
        ("a.corp:443", "a.corp", 443, True),
        ("a.corp:443", "a.corp", 8443, False),
        ("x, a.corp", "a.corp", 443, True),
        ("x a.corp", "a.corp", 443, True),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("10.1.2.3:80", "10.1.2.3", 443, False),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.0.0.0/8", "a.corp", 443, False),
        ("10.1.2.3/8", "10.9.9.9", 443, True),
        ("fd00::/8", "fd00::5", 443, True),
        ("fd00::5", "fd00::5", 443, True),
        ("[fd00::5]:443", "fd00::5", 443, True),
        ("[fd00::5]:80", "fd00::5", 443, False),
        (".", "a.corp", 443, False),
        (",,", "a.corp", 443, False),
        ("[", "a.corp", 443, False),
        ("", "localhost", 443, True),
        ("", "x.localhost", 443, True),
        ("", "127.0.0.9", 443, True),
        ("", "::1", 443, True),
    ],
)
def test_where_no_proxy_is_used(
    no_proxy: str, host: str, port: int, direct: bool
) -> None:
    egress = Egress.read({"HTTPS_PROXY": "http://p:1", "NO_PROXY": no_proxy})

    assert (egress.proxy_for("https", host, port) is None) == direct


@pytest.mark.parametrize(
    "value",
    ["socks5://u:hush@p:1", "http://u:hush@p:99999", "http://u:hush@:1", "hush://p",
     "http://u:hush@[p:1", "http://u:hush@p:0"],
)  # fmt: skip
def test_a_proxy_that_cannot_be_used(value: str) -> None:
    with pytest.raises(SettingError) as refused:
        Egress.read({"HTTPS_PROXY": value})

    assert str(refused.value).startswith("HTTPS_PROXY: ")
    assert "hush" not in str(refused.value)


def test_credentials_are_sent_and_not_shown() -> None:
    egress = Egress.read({"HTTPS_PROXY": "http://us%40er:hu%3Ash@p:1"})
    proxy = egress.proxy_for(*API)

    assert proxy is not None
    assert proxy.authorization == b"Basic dXNAZXI6aHU6c2g="  # us@er:hu:sh
    assert "hu" not in repr(egress)
