"""Host names and origins that the operator allows."""

import pytest

from libs.common.browser_guard import Sender
from libs.common.errors import SettingError
from libs.common.settings.browsers import BrowserSettings


def test_the_guard_knows_the_allowed_hosts_and_origins() -> None:
    guard = BrowserSettings.read(
        {
            "PROXY_ALLOWED_HOSTS": "Proxy.example.com:8000, *.internal.example",
            "PROXY_ALLOWED_ORIGINS": "https://app.example.com:443",
        }
    ).guard
    assert guard.hosts == ("proxy.example.com", "*.internal.example")
    assert guard.origins == ("https://app.example.com",)
    sent = Sender("GET", host="elsewhere", origin="https://app.example.com")
    assert guard.api(sent) is None


def test_by_default_no_other_host_or_origin_is_allowed() -> None:
    guard = BrowserSettings.read({}).guard
    assert (guard.bound, guard.hosts, guard.origins) == ("127.0.0.1", (), ())


def test_the_host_of_the_public_url_is_allowed() -> None:
    given = {
        "PROXY_ALLOWED_HOSTS": "a.example",
        "PROXY_PUBLIC_URL": "https://B.example:9/",
    }
    settings = BrowserSettings.read(given)
    assert settings.public_url == "https://B.example:9"
    assert settings.guard.hosts == ("a.example", "b.example")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PROXY_ALLOWED_HOSTS", "ok.example,https://h"),
        ("PROXY_ALLOWED_ORIGINS", "app.example.com"),
        ("PROXY_PUBLIC_URL", "proxy.example.com"),
        ("PROXY_ALLOWED_ORIGINS", "https://a/path"),
    ],
)
def test_what_is_no_host_or_origin_is_refused(variable: str, value: str) -> None:
    with pytest.raises(SettingError, match=variable):
        BrowserSettings.read({variable: value})
