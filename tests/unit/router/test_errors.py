"""The router's errors in OpenAI's envelope, and that docs/api.md lists all codes."""

import ast
import re
from pathlib import Path

import falcon
import pytest
from falcon import testing
from falcon.asgi import Request, Response
from structlog.testing import capture_logs

from libs.common.errors import NoCatalogue, ProxyError, RedisAway, StoreAway
from libs.common.store.interface import BadQuery
from services.router.errors import Problem, found, of, say
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


def test_what_was_not_found_is_named_with_its_list() -> None:
    with pytest.raises(Problem) as raised:
        found("proxy_key_not_found", "/admin/keys", None)
    error = raised.value
    assert (error.status, error.code) == (404, "proxy_key_not_found")
    assert error.message == "There is no such proxy key. GET /admin/keys lists them."


# Codes in docs/api.md ---------------------------------------------------------

ROOT = Path(__file__).parents[3]
SOURCES = (
    *ROOT.glob("services/gateway/**/*.py"),
    *ROOT.glob("services/router/**/*.py"),
    ROOT / "libs/common/browser_guard.py",
)
CODE = re.compile(r"[a-z]+(_[a-z]+)+")
MAKERS = {"Problem", "Refusal", "found", "partial"}


def codes_in(path: Path) -> set[str]:
    """The codes of the errors that a module makes: arguments of their constructors, or
    the first of two strings that are a code and a message."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        parts: list[ast.expr] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            parts = node.args[:2] if node.func.id in MAKERS else []
        elif isinstance(node, ast.Tuple) and len(node.elts) == 2:
            parts = node.elts[:1] if is_message(node.elts[1]) else []
        for part in parts:
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                found |= {part.value} if CODE.fullmatch(part.value) else set()
    return found


def is_message(part: ast.expr) -> bool:
    if isinstance(part, ast.JoinedStr):
        return True
    return isinstance(part, ast.Constant) and " " in str(part.value)


def test_every_error_code_is_documented_and_no_other() -> None:
    """Of the gateway too: one page has both."""
    made = set().union(*map(codes_in, SOURCES))
    assert {"affinity_owner_unavailable", "database_unreachable"} <= made
    text = (ROOT / "docs/api.md").read_text()
    missing = {code for code in made if f"`{code}`" not in text}
    assert not missing, f"docs/api.md lacks {sorted(missing)}"
    rows = re.findall(r"^\| [\d, ]+ \| (`.+?`) \|", text, re.MULTILINE)
    listed = set(re.findall(r"`([a-z_]+)`", " ".join(rows)))
    assert len(listed) > 30
    assert listed <= made, (
        f"docs/api.md has {sorted(listed - made)}, which nothing makes"
    )
