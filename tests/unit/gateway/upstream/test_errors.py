"""Why an upstream gave no usable response."""

import pytest

from libs.common.contracts.events import Cause
from services.gateway.upstream.errors import (
    Broken,
    Interrupted,
    NoFreeConnection,
    NoKey,
    NotSent,
    Slow,
    TimedOut,
    UpstreamError,
)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (UpstreamError("x"), Cause.CONNECTION_LOST),
        (NotSent("x"), Cause.CONNECT_ERROR),
        (NoFreeConnection(), Cause.NO_FREE_CONNECTION),
        (NoKey(), Cause.NO_KEY),
        (Broken("x"), Cause.CONNECTION_LOST),
        (TimedOut("x"), Cause.TIMEOUT),
        (Slow("x"), Cause.TIMEOUT),
        (Interrupted("x"), Cause.CONNECTION_LOST),
    ],
)
def test_an_error_knows_what_made_the_request_leave(
    error: UpstreamError, cause: Cause
) -> None:
    assert error.cause == cause


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (NotSent("x"), False),
        (NoFreeConnection(), False),
        (NoKey(), False),
        (Broken("x"), True),
        (Slow("x"), True),
        (Interrupted("x"), True),
    ],
)
def test_an_error_knows_whether_the_upstream_may_have_acted(
    error: UpstreamError, sent: bool
) -> None:
    assert error.sent is sent


def test_a_broken_connection_was_new_unless_told_otherwise() -> None:
    assert not Broken("x").reused
