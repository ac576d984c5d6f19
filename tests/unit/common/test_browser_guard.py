"""Which requests are allowed, by the headers that browsers send."""

import pytest

from libs.common.browser_guard import Guard, Sender, host_of, origin_of, sender

HERE = "127.0.0.1:8000"
GUARD = Guard(
    hosts=("proxy.example.com", "*.internal.example", "10.1.2.3"),
    origins=("https://app.example",),
)
JSON = "application/json"


def admin(path: str = "/admin/state", method: str = "GET", **said: str) -> str | None:
    found = GUARD.admin(path, Sender(method, **{"host": HERE, **said}))
    return None if found is None else found.code


def api(method: str = "POST", **said: str) -> str | None:
    found = GUARD.api(Sender(method, **{"host": HERE, **said}))
    return None if found is None else found.code


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8000",
        "127.8.9.10:1",
        "localhost",
        "LocalHost:8000",
        "localhost.",
        "[::1]:8000",
        "[::ffff:127.0.0.1]",
        "proxy.example.com",
        "PROXY.example.com:443",
        "proxy.example.com.",
        "a.internal.example:81",
        "a.b.internal.example",
        "10.1.2.3:8000",
    ],
)
def test_names_of_this_proxy(host: str) -> None:
    assert GUARD.answers_to(host)


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "evil.example#127.0.0.1",
        "evil.example/127.0.0.1",
        "127.0.0.1, evil.example",
        "evil.localhost",
        "internal.example",
        "evilinternal.example",
        "notproxy.example.com",
        "10.1.2.4",
        "0.0.0.0:8000",
        "[::]:8000",
        "[2001:db8::1]",
        "[::1",
        "127.1",
        "2130706433",
        "host name",
        "*.internal.example",
    ],
)
def test_names_of_others(host: str | None) -> None:
    assert not GUARD.answers_to(host)
    refused = GUARD.admin("/", Sender("GET", host=host))
    assert refused is not None
    assert (refused.status, refused.code) == (403, "host_not_allowed")
    assert "PROXY_ALLOWED_HOSTS" in refused.message


def test_the_bound_address_is_a_name() -> None:
    assert Guard(bound="192.0.2.7").answers_to("192.0.2.7:8000")
    assert Guard(bound="proxy-1").answers_to("Proxy-1:8000")
    assert not Guard(bound="192.0.2.7").answers_to("192.0.2.8:8000")


def test_bound_to_all_the_addresses_of_this_machine_are_names() -> None:
    everywhere = Guard(bound="0.0.0.0", is_local={"192.0.2.7"}.__contains__)
    assert everywhere.answers_to("192.0.2.7:8000")
    assert not everywhere.answers_to("192.0.2.8:8000")
    assert not everywhere.answers_to("0.0.0.0:8000")
    assert not everywhere.answers_to("machine-1:8000")
    one = Guard(bound="127.0.0.1", is_local={"192.0.2.7"}.__contains__)
    assert not one.answers_to("192.0.2.7:8000")


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({}, None),
        ({"origin": f"http://{HERE}"}, None),
        ({"origin": f"http://{HERE}", "site": "same-origin"}, None),
        ({"site": "none", "mode": "navigate"}, None),
        ({"host": "proxy.example.com", "origin": "https://proxy.example.com"}, None),
        (
            {"host": "proxy.example.com:443", "origin": "https://proxy.example.com"},
            None,
        ),
        ({"host": "localhost", "origin": "http://localhost"}, None),
        ({"origin": "https://evil.example"}, "origin_not_allowed"),
        ({"origin": "https://app.example"}, "origin_not_allowed"),  # for /v1 only
        ({"origin": "null"}, "origin_not_allowed"),
        ({"origin": ""}, "origin_not_allowed"),
        ({"origin": "http://127.0.0.1:8001"}, "origin_not_allowed"),
        ({"origin": "http://127.0.0.1"}, "origin_not_allowed"),
        ({"origin": "http://127.0.0.2:8000"}, "origin_not_allowed"),
        ({"origin": "http://localhost:8000"}, "origin_not_allowed"),
        ({"origin": f"http://{HERE}.evil.example"}, "origin_not_allowed"),
        ({"origin": f"http://evil.example@{HERE}"}, "origin_not_allowed"),
        ({"host": "evil.example", "origin": "http://evil.example"}, "host_not_allowed"),
        ({"site": "cross-site"}, "origin_not_allowed"),
        ({"site": "same-site"}, "origin_not_allowed"),
        ({"site": "of-the-future"}, "origin_not_allowed"),
        ({"site": "cross-site", "mode": "navigate"}, "origin_not_allowed"),
    ],
)
def test_admin_serves_its_own_pages_and_programs(
    said: dict[str, str], code: str | None
) -> None:
    assert admin(**said) == code
    assert admin("/admin/keys", "POST", content_type=JSON, **said) == code


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_links_elsewhere_open_pages(path: str) -> None:
    link = {"site": "cross-site", "mode": "navigate", "dest": "document"}
    assert admin(path, **link) is None
    assert admin("/admin/state", **link) == "origin_not_allowed"
    assert admin(path, "POST", content_type=JSON, **link) == "origin_not_allowed"
    assert admin(path, **{**link, "dest": "iframe"}) == "origin_not_allowed"
    assert admin(path, **{**link, "mode": "no-cors"}) == "origin_not_allowed"
    assert admin(path, **link, host="evil.example") == "host_not_allowed"


@pytest.mark.parametrize(
    ("method", "kind", "code"),
    [
        ("POST", "application/json", None),
        ("POST", "Application/JSON; charset=utf-8", None),
        ("PATCH", "application/json", None),
        ("DELETE", "application/json", None),
        ("DELETE", None, None),
        ("POST", None, "unsupported_media_type"),
        ("POST", "", "unsupported_media_type"),
        ("POST", "text/plain", "unsupported_media_type"),
        ("POST", "text/plain;application/json", "unsupported_media_type"),
        ("POST", "application/x-www-form-urlencoded", "unsupported_media_type"),
        ("POST", "multipart/form-data", "unsupported_media_type"),
        ("POST", "application/jsonp", "unsupported_media_type"),
        ("PUT", "text/plain", "unsupported_media_type"),
        ("PATCH", None, "unsupported_media_type"),
        ("DELETE", "text/plain", "unsupported_media_type"),
        ("GET", "text/plain", None),
    ],
)
def test_admin_takes_json_only(method: str, kind: str | None, code: str | None) -> None:
    said = {} if kind is None else {"content_type": kind}
    assert admin("/admin/keys", method, **said) == code


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({}, None),
        ({"host": "any.balancer.example"}, None),
        ({"host": "any.example", "mode": "cors", "language": "*"}, None),  # Node
        ({"origin": "https://app.example", "host": "any.example"}, None),
        ({"origin": "https://app.example", "site": "cross-site"}, None),
        ({"origin": f"http://{HERE}"}, None),
        ({"language": "en"}, None),  # a browser, at an address of ours
        ({"origin": "https://evil.example"}, "origin_not_allowed"),
        ({"origin": "https://app.example.evil"}, "origin_not_allowed"),
        ({"origin": "http://app.example"}, "origin_not_allowed"),
        ({"origin": "null"}, "origin_not_allowed"),
        ({"site": "cross-site", "mode": "no-cors"}, "origin_not_allowed"),
        ({"host": "evil.example", "origin": "http://evil.example"}, "host_not_allowed"),
        ({"host": "evil.example", "site": "same-origin"}, "host_not_allowed"),
        ({"host": "evil.example", "language": "en"}, "host_not_allowed"),
    ],
)
def test_the_api_serves_programs_and_listed_origins(
    said: dict[str, str], code: str | None
) -> None:
    assert api(**said) == code


def test_a_refusal_repeats_little_of_what_was_sent() -> None:
    refused = GUARD.api(Sender("POST", host=HERE, origin="x" * 9000 + "\n"))
    assert refused is not None
    assert len(refused.message) < 400
    assert "PROXY_ALLOWED_ORIGINS" in refused.message


def test_a_sender_is_read_from_headers() -> None:
    headers = [
        (b"host", b"a"),
        (b"host", b"b"),
        (b"sec-fetch-site", b" cross-site "),
        (b"content-type", b"text/plain"),
        (b"origin", b"http://m\xfcller.example"),
    ]
    found = sender("GET", headers)
    assert (found.host, found.site, found.content_type) == (
        "a",
        "cross-site",
        "text/plain",
    )
    assert found.browser


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a.example", "a.example"),
        ("A.example:80", "a.example"),
        ("::1", "::1"),
        ("[::1]:80", "::1"),
        ("", None),
        (".", None),
        (":80", None),
        ("http://a", None),
        ("a:b", None),
        ("a:80:80", None),
    ],
)
def test_host_of(text: str, name: str | None) -> None:
    assert host_of(text) == name


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://app.example", "https://app.example"),
        ("https://App.example:443/", "https://app.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ("tauri://localhost", "tauri://localhost"),
        ("null", None),
        ("*", None),
        ("app.example", None),
        ("https://", None),
        ("https://a/b", None),
        ("https://user@a", None),
        ("https://a b", None),
    ],
)
def test_origin_of(text: str, origin: str | None) -> None:
    assert origin_of(text) == origin
