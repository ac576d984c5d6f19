"""Connection targets, and why a connection could not be made."""

import pytest

from libs.common.contracts.events import Cause
from services.gateway.upstream.errors import (
    NoFreeConnection,
    NotSent,
    Origin,
    UpstreamError,
)


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


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (UpstreamError("x"), Cause.CONNECTION_LOST),
        (NotSent("x"), Cause.CONNECT_ERROR),
        (NoFreeConnection(), Cause.NO_FREE_CONNECTION),
    ],
)
def test_an_error_knows_what_made_the_request_leave(
    error: UpstreamError, cause: Cause
) -> None:
    assert error.cause == cause
