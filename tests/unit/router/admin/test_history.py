"""The admin API over a fake database and a fake health service: who may ask,
what nonsense gets, and the envelope of every error."""

import json
from typing import Any

import falcon.asgi
import pytest
import zstandard
from falcon import testing

from libs.common.contracts import Row
from libs.common.errors import NoCatalogue, ProxyError, RedisAway, StoreAway
from libs.common.store.port import HistoryQuery, Page
from services.router.admin import checks
from services.router.admin.access import AdminToken
from services.router.admin.bodies import shown
from services.router.admin.checks import Examiner, HealthCheck
from services.router.admin.history import History, OneRequest
from services.router.problems import say

TOKEN = "correct-horse"
ROW: Row = {"id": "r1", "created_at": "2026-01-02T03:04:05.678Z", "decisions": []}


def payload(direction: str, body: bytes, **given: Any) -> Row:
    return {
        "direction": direction,
        "content_type": "application/json",
        "encoding": "zstd",
        "original_bytes": 14,
        "truncated": False,
        "dropped": None,
        "body": body,
        **given,
    }


class Store:
    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked: list[HistoryQuery] = []

    async def history(self, query: HistoryQuery) -> Page:
        self.asked.append(query)
        if self.error:
            raise self.error
        return Page((ROW,), "bmV4dA")

    async def request(self, id: str) -> Row | None:  # noqa: A002 - its column
        return ROW if id == "r1" else None

    async def payloads(self, request: Row) -> list[Row]:
        assert request == ROW
        return [
            payload("request", zstandard.compress('{"input":"é"}'.encode())),
            payload("response", b"", dropped="too large for one entry"),
        ]


class Orders:
    """A health service that answers, is slow, or is not there."""

    def __init__(self) -> None:
        self.answer: bytes | None = b'[{"resource_id": "openai-1"}]'
        self.untaken = True

    async def place(self, order: str) -> None:
        self.order = order

    async def fetch(self, order: str) -> bytes | None:
        assert order == self.order
        return self.answer

    async def withdraw(self, order: str) -> bool:
        assert order == self.order
        return self.untaken


class Api:
    """The API under test, and what it stands on."""

    def __init__(self, token: str | None) -> None:
        self.store = Store()
        self.orders = Orders()
        app: falcon.asgi.App[Any, Any] = falcon.asgi.App()
        for kind in (Exception, ProxyError, falcon.HTTPError):
            app.add_error_handler(kind, say)
        app.add_middleware(AdminToken(token))
        app.add_route("/admin/requests", History(self.store, "requests"))
        app.add_route("/admin/requests/{request_id}", OneRequest(self.store))
        app.add_route("/admin/health/check", HealthCheck(Examiner(self.orders, 0.05)))
        self.client = testing.TestClient(app)

    def get(self, path: str, **more: Any) -> testing.Result:
        return self.client.simulate_get(path, **more)


def code(result: testing.Result) -> str:
    error = result.json["error"]
    assert set(result.json) == {"error"}
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["code"])


@pytest.fixture
def api() -> Api:
    return Api(token=None)


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(None, id="none"),
        pytest.param("Bearer wrong", id="wrong"),
        pytest.param("Bearer", id="empty"),
        pytest.param(f"Basic {TOKEN}", id="another scheme"),
        pytest.param(TOKEN, id="bare"),
        pytest.param("Bearer caf\xe9", id="not ASCII"),
    ],
)
@pytest.mark.parametrize("path", ["/admin/requests", "/admin/nothing-here"])
def test_without_the_token_nothing_is_said(
    path: str, authorization: str | None
) -> None:
    headers = {"authorization": authorization} if authorization else {}
    result = Api(TOKEN).get(path, headers=headers)
    assert (result.status_code, code(result)) == (401, "invalid_admin_token")
    assert result.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_the_token_opens(scheme: str) -> None:
    headers = {"authorization": f"{scheme} {TOKEN}"}
    result = Api(TOKEN).get("/admin/requests", headers=headers)
    assert result.status_code == 200


def test_history_is_handed_on_as_asked(api: Api) -> None:
    query = "limit=500&session_id=s%201&resource_id=openai-1&request_id=r1"
    result = api.get("/admin/requests", query_string=query)
    assert result.json == {"data": [ROW], "next_cursor": "bmV4dA"}
    assert api.store.asked == [
        HistoryQuery("requests", 500, "s 1", "openai-1", "r1", None)
    ]


def test_an_empty_limit_is_the_usual_one(api: Api) -> None:
    api.get("/admin/requests", query_string="limit=")
    assert api.store.asked[0].limit == 100


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=%D9%A3", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("cursor=zzz", "cursor"),
        ("session_id=a%00b", "session_id"),
    ],
)
def test_nonsense_is_named(api: Api, query: str, param: str) -> None:
    result = api.get("/admin/requests", query_string=query)
    assert (result.status_code, code(result)) == (400, "invalid_query")
    assert result.json["error"]["param"] == param


def test_one_request(api: Api) -> None:
    answer = api.get("/admin/requests/r1").json
    bodies = answer.pop("bodies")
    assert answer == ROW
    assert bodies["request"]["body"] == '{"input":"é"}'
    assert bodies["request"]["encoding"] == "utf-8"
    assert bodies["response"]["body"] is None
    assert bodies["response"]["dropped"] == "too large for one entry"


def test_one_request_without_its_bodies(api: Api) -> None:
    assert api.get("/admin/requests/r1", query_string="bodies=false").json == ROW


def test_bodies_are_wanted_or_not(api: Api) -> None:
    result = api.get("/admin/requests/r1", query_string="bodies=maybe")
    assert (result.status_code, code(result)) == (400, "invalid_query")


@pytest.mark.parametrize(
    ("given", "encoding", "body"),
    [
        ({"body": zstandard.compress(b"\xff\x00")}, "base64", "/wA="),
        ({"body": zstandard.compress(b"a\xc3"), "truncated": True}, "utf-8", "a"),
        ({"body": zstandard.compress(b"a\xc3")}, "base64", "YcM="),
        ({"body": zstandard.compress(b"x"), "encoding": "br, zstd"}, "utf-8", "x"),
        ({"body": b"rubbish"}, None, None),
        ({"body": b"x", "encoding": "lzma"}, None, None),
    ],
)
def test_a_body_is_text_where_it_can_be(
    given: dict[str, Any], encoding: str | None, body: str | None
) -> None:
    found = shown([payload("request", **given)])["request"]
    assert (found["encoding"], found["body"]) == (encoding, body)
    assert found["content_encoding"] == ("br" if "br, zstd" in given.values() else None)
    assert (found["dropped"] is None) == (encoding is not None)


def test_an_unknown_request(api: Api) -> None:
    result = api.get("/admin/requests/r2")
    assert (result.status_code, code(result)) == (404, "request_not_found")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (StoreAway(), (503, "database_unreachable")),
        (RedisAway(), (503, "redis_unreachable")),
        (NoCatalogue(), (503, "not_ready")),
        (ZeroDivisionError("a secret"), (500, "internal_error")),
    ],
)
def test_what_is_away_is_said_and_nothing_of_our_insides(
    api: Api, error: Exception, expected: tuple[int, str]
) -> None:
    api.store.error = error
    result = api.get("/admin/requests")
    assert (result.status_code, code(result)) == expected
    assert "secret" not in result.text


def test_an_unknown_route(api: Api) -> None:
    result = api.get("/nothing-here")
    assert (result.status_code, code(result)) == (404, "unknown_route")


def test_a_method_that_is_not_there(api: Api) -> None:
    result = api.client.simulate_delete("/admin/requests")
    assert (result.status_code, code(result)) == (405, "method_not_allowed")
    assert "GET" in result.headers["allow"]


def test_a_check_gives_the_findings(api: Api) -> None:
    result = api.client.simulate_post("/admin/health/check")
    assert result.json == {"data": json.loads(api.orders.answer or b"")}


@pytest.mark.parametrize("untaken", [True, False])
def test_a_check_that_nobody_answers(
    api: Api, untaken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "UNTAKEN_S", 0.01)
    api.orders.answer, api.orders.untaken = None, untaken
    result = api.client.simulate_post("/admin/health/check")
    assert (result.status_code, code(result)) == (503, "health_unreachable")
