"""Who may use the admin API."""

from typing import Any

import pytest
from falcon import testing
from falcon.asgi import Request, Response

from libs.common.browser_guard import CHECKED, CLIENT_ADDRESS, Guard
from libs.common.store.interface import ANYONE
from services.router.admin.access import WhoAmI
from services.router.admin.auth.access import AdminToken, Browsers, Holder
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


class Named:
    """The holder of each token."""

    async def holder(self, given: bytes) -> Holder | None:
        roles = {b"v": "viewer", b"a": "admin", b"n": "not known yet"}
        role = roles.get(given)
        return Holder(f"{role}-1", role) if role else None


class Everything:
    async def on_get(self, req: Request, resp: Response, **_: Any) -> None:
        actor = req.context.actor
        resp.media = [actor.name, actor.address, actor.peer]

    on_post = on_patch = on_put = on_delete = on_head = on_get


def named_api(first: FixedToken | None) -> testing.TestClient:
    paths = ("/admin/keys", "/admin/route/explain", "/admin/route/explain/x")
    return client(dict.fromkeys(paths, Everything()), AdminToken(first, Named()))


@pytest.mark.parametrize(
    ("token", "method", "path", "status"),
    [
        ("v", "GET", "/admin/keys", 200),
        ("v", "HEAD", "/admin/keys", 200),
        ("v", "POST", "/admin/keys", 403),
        ("v", "PATCH", "/admin/keys", 403),
        ("v", "PUT", "/admin/keys", 403),
        ("v", "DELETE", "/admin/keys", 403),
        ("v", "POST", "/admin/nothing-here", 403),
        ("v", "POST", "/admin/route/explain", 200),
        ("v", "POST", "/admin/route/explain/x", 403),
        ("n", "GET", "/admin/keys", 200),
        ("n", "POST", "/admin/keys", 403),
        ("a", "DELETE", "/admin/keys", 200),
        (TOKEN, "DELETE", "/admin/keys", 200),
        ("x", "GET", "/admin/keys", 401),
    ],
)
def test_what_a_role_may_do(token: str, method: str, path: str, status: int) -> None:
    headers = {"authorization": f"Bearer {token}"}
    api = named_api(FixedToken(TOKEN))
    result = api.simulate_request(method, path, headers=headers)
    assert result.status_code == status
    if status == 403:
        assert problem(result)[1] == "admin_token_may_only_read"


@pytest.mark.parametrize(
    ("first", "token", "holder"),
    [
        (FixedToken(TOKEN), TOKEN, {"name": "default", "role": "admin"}),
        (FixedToken(TOKEN), "a", {"name": "admin-1", "role": "admin"}),
        (FixedToken(TOKEN), "v", {"name": "viewer-1", "role": "viewer"}),
        (None, "v", {"name": ANYONE, "role": "admin"}),
    ],
)
def test_whoever_asks_learns_the_role_of_the_token(
    first: FixedToken | None, token: str, holder: dict[str, str]
) -> None:
    api = client({"/admin/whoami": WhoAmI()}, AdminToken(first, Named()))
    headers = {"authorization": f"Bearer {token}"}
    assert api.simulate_get("/admin/whoami", headers=headers).json == holder


@pytest.mark.parametrize(
    ("first", "headers", "seen"),
    [
        pytest.param(
            FixedToken(TOKEN),
            {"authorization": f"Bearer {TOKEN}"},
            ["default", "127.0.0.1", "127.0.0.1"],
            id="the first token",
        ),
        pytest.param(
            FixedToken(TOKEN),
            {"authorization": "Bearer a", CHECKED: "1", CLIENT_ADDRESS: "192.0.2.1"},
            ["admin-1", "192.0.2.1", "127.0.0.1"],
            id="through a gateway",
        ),
        pytest.param(
            FixedToken(TOKEN),
            {"authorization": "Bearer a", CHECKED: "1"},
            ["admin-1", "127.0.0.1", "127.0.0.1"],
            id="through an older gateway",
        ),
        pytest.param(
            FixedToken(TOKEN),
            {"authorization": "Bearer a", CLIENT_ADDRESS: "192.0.2.1"},
            ["admin-1", "127.0.0.1", "127.0.0.1"],
            id="not through a gateway",
        ),
        pytest.param(None, {}, ["(open)", "127.0.0.1", "127.0.0.1"], id="open"),
    ],
)
def test_who_sent_a_request(
    first: FixedToken | None, headers: dict[str, str], seen: list[str]
) -> None:
    api = named_api(first)
    found = api.simulate_get("/admin/keys", headers=headers, remote_addr="127.0.0.1")
    assert found.json == seen


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
