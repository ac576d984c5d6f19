"""Where connections go."""

import pytest

from services.gateway.upstream.origin import Origin


@pytest.mark.parametrize(
    ("host", "authority"),
    [
        ("api.test", "api.test:443"),
        ("192.0.2.1", "192.0.2.1:443"),
        ("fd00::1", "[fd00::1]:443"),
    ],
)
def test_an_authority_is_as_urls_have_it(host: str, authority: str) -> None:
    assert Origin("https", host, 443).authority == authority


def test_origins_are_told_apart_by_scheme_host_and_port() -> None:
    one = Origin("https", "api.test", 443)
    assert one == Origin("https", "api.test", 443)
    others = {
        Origin("http", "api.test", 443),
        Origin("https", "api.test", 444),
        Origin("https", "b", 443),
    }
    assert one not in others
