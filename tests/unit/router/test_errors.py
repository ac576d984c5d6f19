"""The router's errors, in OpenAI's format."""

import falcon
import pytest
from falcon import testing
from falcon.asgi import Request, Response
from structlog.testing import capture_logs

from libs.common.errors import NoCatalogue, ProxyError, RedisAway, StoreAway
from libs.common.store.interface import BadQuery
from services.router.errors import Problem, of, say
from tests.support.values.admin import client, problem


class Raises:
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def on_get(self, _: Request, resp: Response) -> None:
        raise self.error


def answered(error: Exception) -> testing.Result:
    return client({"/": Raises(error)}).simulate_get("/")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Problem(409, "taken", "It is.", param="id"), (409, "taken", "id")),
        (BadQuery("limit: no number"), (400, "invalid_query", "limit")),
        (StoreAway(), (503, "database_unreachable", None)),
        (RedisAway(), (503, "redis_unreachable", None)),
        (NoCatalogue(), (503, "not_ready", None)),
        (falcon.HTTPUnsupportedMediaType(), (415, "invalid_request", None)),
        (falcon.HTTPBadRequest(description="Odd."), (400, "invalid_request", None)),
    ],
)
def test_every_error_has_its_answer(
    error: Exception, expected: tuple[int, str, str | None]
) -> None:
    result = answered(error)
    assert problem(result) == expected
    assert result.headers["cache-control"] == "no-store"
    assert result.headers.get("retry-after") == ("2" if expected[0] == 503 else None)


@pytest.mark.parametrize("error", [ZeroDivisionError("hush"), ProxyError("hush")])
def test_nothing_is_told_of_our_insides_but_to_the_log(error: Exception) -> None:
    with capture_logs() as logs:
        result = answered(error)
    assert problem(result)[:2] == (500, "internal_error")
    assert "hush" not in result.text
    assert [log["action"] for log in logs] == ["request_failed"]
    assert logs[0]["exc_info"] is error


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (404, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_the_type_goes_by_the_status(status: int, kind: str) -> None:
    result = answered(Problem(status, "code", "Text."))
    assert result.json["error"]["type"] == kind


def test_who_is_refused_learns_how_to_ask() -> None:
    result = answered(Problem(401, "invalid_admin_token", "Send it."))
    assert result.headers["www-authenticate"] == "Bearer"


def test_an_unknown_route() -> None:
    result = client({"/": Raises(StoreAway())}).simulate_get("/nothing-here")
    assert problem(result)[:2] == (404, "unknown_route")


def test_a_method_that_is_not_there() -> None:
    result = client({"/": Raises(StoreAway())}).simulate_delete("/")
    assert problem(result)[:2] == (405, "method_not_allowed")
    assert "GET" in result.headers["allow"]


def test_a_subclass_is_answered_as_what_it_is() -> None:
    class Hung(StoreAway):
        """Hung."""

    assert of(Hung()).code == "database_unreachable"


@pytest.mark.asyncio
async def test_without_a_request_there_is_nobody_to_answer() -> None:
    with pytest.raises(StoreAway):
        await say(None, None, StoreAway())
