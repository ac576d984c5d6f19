"""Who may use the admin API."""

import pytest
from falcon import testing
from falcon.asgi import Request, Response

from libs.common.browser_guard import CHECKED, Guard
from services.router.admin.auth.access import AdminToken, Browsers
from services.router.admin.auth.tokens import FixedToken
from services.router.errors import Problem
from tests.support.values.admin import client, problem

TOKEN = "correct-horse"
PATHS = ["/admin", "/admin/requests", "/admin/nothing-here"]


class Anything:
    async def on_get(self, _: Request, resp: Response) -> None:
        resp.media = {"seen": True}


def api(token: str | None) -> testing.TestClient:
    routes = dict.fromkeys(("/admin/requests", "/readyz", "/internal/x"), Anything())
    return client(routes, AdminToken(FixedToken(token) if token else None))


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(None, id="none"),
        pytest.param("Bearer wrong", id="wrong"),
        pytest.param("Bearer", id="empty"),
        pytest.param(f"Basic {TOKEN}", id="another scheme"),
        pytest.param(TOKEN, id="bare"),
        pytest.param(f"Bearer {TOKEN[:-1]}", id="a part"),
        pytest.param("Bearer caf\xe9", id="not ASCII"),
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_nothing_is_said(
    path: str, authorization: str | None
) -> None:
    headers = {"authorization": authorization} if authorization else {}
    result = api(TOKEN).simulate_get(path, headers=headers)
    assert problem(result)[:2] == (401, "invalid_admin_token")
    assert result.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in result.text


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_token_opens(scheme: str) -> None:
    headers = {"authorization": f"{scheme} {TOKEN}"}
    result = api(TOKEN).simulate_get("/admin/requests", headers=headers)
    assert result.json == {"seen": True}


def test_without_a_token_the_api_is_open() -> None:
    assert api(None).simulate_get("/admin/requests").status_code == 200


@pytest.mark.parametrize("path", ["/readyz", "/internal/x"])
def test_what_is_not_under_admin_needs_no_token(path: str) -> None:
    assert api(TOKEN).simulate_get(path).status_code == 200


HOST = {"host": "localhost"}
FOREIGN = {**HOST, "origin": "https://evil.example"}


@pytest.mark.parametrize(
    ("path", "headers", "code"),
    [
        pytest.param("/admin/requests", HOST, None, id="own page"),
        pytest.param(
            "/admin/requests", FOREIGN, "origin_not_allowed", id="another origin"
        ),
        pytest.param(
            "/admin/requests", {"host": "evil.example"}, "host_not_allowed", id="host"
        ),
        pytest.param(
            "/internal/x", FOREIGN, "origin_not_allowed", id="internal, another origin"
        ),
        pytest.param("/internal/x", {"host": "router.lan"}, None, id="a gateway"),
        pytest.param("/readyz", FOREIGN, None, id="a probe"),
        pytest.param(
            "/admin/requests", {**FOREIGN, CHECKED: "1"}, None, id="gateway checked it"
        ),
    ],
)
@pytest.mark.asyncio
async def test_requests_of_other_pages_are_refused(
    path: str, headers: dict[str, str], code: str | None
) -> None:
    # Not by the test client, which hides the headers of the scope.
    scope = testing.create_scope(path=path)
    scope["headers"] = [(n.encode(), v.encode()) for n, v in headers.items()]
    request = Request(scope, testing.ASGIRequestEventEmitter().emit)
    refusal: str | None = None
    try:
        await Browsers(Guard()).process_request(request, Response())
    except Problem as problem:
        refusal = problem.code
    assert refusal == code


def test_other_pages_can_neither_frame_nor_read_a_response() -> None:
    result = client({"/readyz": Anything()}, Browsers(Guard())).simulate_get("/readyz")
    assert result.headers["x-content-type-options"] == "nosniff"
    assert result.headers["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'none'" in result.headers["content-security-policy"]
