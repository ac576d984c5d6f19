"""Who may use the admin API."""

import pytest
from falcon import testing
from falcon.asgi import Request, Response

from services.router.admin.auth.access import AdminToken
from services.router.admin.auth.tokens import FixedToken
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
