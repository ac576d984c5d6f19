"""The client of the admin API, over a transport in memory."""

import json
from collections.abc import Callable

import httpx
import pytest

from libs.cli.admin.access import Access
from libs.cli.admin.client import AdminApi
from libs.cli.admin.kinds import KEYS, MODELS, PRICES, PROVIDERS, TEAMS
from libs.common.errors import ProxyError, SettingError

URL = "http://proxy:8000"
HUSH = "hush"
Handler = Callable[[httpx.Request], httpx.Response]


def api(handler: Handler, token: str | None = HUSH) -> AdminApi:
    source = "PROXY_ADMIN_TOKEN" if token else ""
    return AdminApi(Access(URL, token, source), httpx.MockTransport(handler))


def error(status: int, message: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"message": message, "code": "x"}})


def test_all_pages_are_read() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url).removeprefix(URL))
        if request.url.path == "/admin/providers":
            return httpx.Response(200, json={"data": [1], "next_cursor": None})
        name = "next_after" if request.url.path == "/admin/teams" else "next_cursor"
        following = "a b" if len(request.url.params) == 1 else None
        return httpx.Response(200, json={"data": [1], name: following})

    with api(answer) as client:
        assert client.rows(PROVIDERS) == [1]  # type: ignore[comparison-overlap]
        assert client.rows(KEYS) == client.rows(TEAMS) == [1, 1]  # type: ignore[comparison-overlap]
    assert asked == [
        "/admin/providers",
        "/admin/keys?limit=500",
        "/admin/keys?limit=500&cursor=a+b",
        "/admin/teams?limit=500",
        "/admin/teams?limit=500&after=a+b",
    ]


def test_writes() -> None:
    seen: list[tuple[str, str, object, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        path = request.url.raw_path.decode()
        seen.append((request.method, path, body, request.headers["authorization"]))
        return httpx.Response(200, json={"id": "a"})

    with api(answer) as client:
        client.document()
        client.create(KEYS, {"name": "a"})
        client.change(MODELS, "a/b:c", {"enabled": False})
        client.remove(TEAMS, "x?y")
        client.create(PRICES, {"model": "a/b", "prices": []})
        client.change(PRICES, "a/b", {"prices": []})
    assert seen == [
        ("GET", "/openapi.json", None, "Bearer hush"),
        ("POST", "/admin/keys", {"name": "a"}, "Bearer hush"),
        ("PATCH", "/admin/models/a/b:c", {"enabled": False}, "Bearer hush"),
        ("DELETE", "/admin/teams/x%3Fy", None, "Bearer hush"),
        *[("PUT", "/admin/prices/a/b", {"prices": []}, "Bearer hush")] * 2,
    ]


def test_the_message_of_the_api() -> None:
    with pytest.raises(ProxyError, match=r"^name: is taken$"):
        api(lambda _: error(409, "name: is taken")).create(KEYS, {})


def test_a_wrong_token() -> None:
    with pytest.raises(SettingError, match=r"^PROXY_ADMIN_TOKEN: holds another token"):
        api(lambda _: error(401, "no")).rows(KEYS)
    with pytest.raises(SettingError, match="is not set, and http://proxy:8000 requ"):
        api(lambda _: error(401, "no"), token=None).rows(KEYS)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[]),
        httpx.Response(502, text="Bad Gateway"),
        httpx.Response(404, json={"error": "no"}),
        httpx.Response(301, headers={"location": "http://elsewhere"}),
    ],
)
def test_something_else_answers(answer: httpx.Response) -> None:
    with pytest.raises(ProxyError, match="but not as the admin API does"):
        api(lambda _: answer).rows(KEYS)


def test_nobody_answers() -> None:
    def refused(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[Errno 111] Connection refused")

    def late(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("")

    with pytest.raises(ProxyError, match=r"cannot be reached \(\[Errno 111\] Conn"):
        api(refused).rows(KEYS)
    with pytest.raises(ProxyError, match=r"did not answer within 30 s$"):
        api(late).rows(KEYS)
    with pytest.raises(ProxyError, match=r"The change may have been made$"):
        api(late).create(KEYS, {})
