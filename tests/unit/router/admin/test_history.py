"""Histories and single requests, over a fake database."""

from collections.abc import Mapping
from typing import Any

import pytest
import zstandard
from falcon import testing

from libs.common.contracts.events import Row
from libs.common.errors import StoreAway
from libs.common.store.interface import HistoryQuery, Page
from services.router.admin.history import (
    Decisions,
    OneRequest,
    Requests,
    Sessions,
)
from tests.support.values.admin import client, problem, request_row

ROW = request_row(id="r1", created_at="2026-01-02T03:04:05.678Z", total_tokens=15)
WHOLE_ROW: Row = {**ROW, "decisions": []}


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
        self.cost: float | None = None

    async def history(self, query: HistoryQuery) -> Page:
        self.asked.append(query)
        if self.error:
            raise self.error
        return Page((ROW,) if query.table == "requests" else (), "bmV4dA")

    async def request(self, id: str) -> Row | None:  # noqa: A002 - its column
        return WHOLE_ROW if id == "r1" else None

    async def fetch(self, name: str, values: Mapping[str, Any]) -> list[Row]:
        assert (name, values["id"]) == ("cost_of_request", "r1")
        return [{"cost": self.cost}] if self.cost is not None else []

    async def payloads(self, request: Row) -> list[Row]:
        assert request == WHOLE_ROW
        return [
            payload("request", zstandard.compress('{"input":"é"}'.encode())),
            payload("response", b"", dropped="too large for one entry"),
        ]


class Api:
    """The API under test with its fakes."""

    def __init__(self) -> None:
        self.store = Store()
        self.client = client(
            {
                "/admin/requests": Requests(self.store),
                "/admin/sessions": Sessions(self.store),
                "/admin/decisions": Decisions(self.store),
                "/admin/requests/{id}": OneRequest(self.store),
            }
        )

    def get(self, path: str, **more: Any) -> testing.Result:
        return self.client.simulate_get(path, **more)


@pytest.fixture
def api() -> Api:
    return Api()


def test_history_is_handed_on_as_asked(api: Api) -> None:
    query = "limit=500&session_id=s%201&resource_id=openai-1&request_id=r1"
    result = api.get("/admin/requests", query_string=query)
    assert result.json == {"data": [ROW], "next_cursor": "bmV4dA"}
    assert api.store.asked == [
        HistoryQuery("requests", 500, "s 1", "openai-1", "r1", None)
    ]


def test_the_filters_of_requests(api: Api) -> None:
    given: dict[str, Any] = {
        "status": "5xx", "outcome": "failed", "model": "m", "proxy_key_id": "k",
        "team_id": "t", "error_code": "e",
    }  # fmt: skip
    times = {"from": "2026-01-02T03:04:05Z", "to": "2026-01-03T03:04:05Z"}
    api.get("/admin/requests", params={**given, **times})
    named: dict[str, Any] = {"since": times["from"], "until": times["to"]}
    assert api.store.asked == [HistoryQuery("requests", **given, **named)]


def test_the_filters_of_decisions(api: Api) -> None:
    api.get("/admin/decisions", params={"reason": "panic", "status": "5xx"})
    assert api.store.asked == [HistoryQuery("decisions", reason="panic")]


def test_each_table_has_its_own_path(api: Api) -> None:
    for table in ("sessions", "requests", "decisions"):
        assert api.get(f"/admin/{table}").status_code == 200
        assert api.store.asked.pop().table == table


@pytest.mark.parametrize("query", ["limit=", "session_id=", "cursor="])
def test_an_empty_filter_is_none(api: Api, query: str) -> None:
    api.get("/admin/requests", query_string=query)
    assert api.store.asked == [HistoryQuery("requests")]


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
        ("error_code=a%00b", "error_code"),
        ("status=9xx", "status"),
        ("outcome=lost", "outcome"),
        ("from=yesterday", "from"),
        ("to=2026-01-02T03:04:05", "to"),
    ],
)
def test_nonsense_is_named(api: Api, query: str, param: str) -> None:
    result = api.get("/admin/requests", query_string=query)
    assert problem(result) == (400, "invalid_query", param)


def test_one_request(api: Api) -> None:
    api.store.cost = 0.25
    answer = api.get("/admin/requests/r1").json
    bodies, times = answer.pop("bodies"), answer.pop("timeline")
    assert answer == {**WHOLE_ROW, "cost_usd": 0.25}
    assert times["received_ms"] == 0
    assert bodies["request"]["body"] == '{"input":"é"}'
    assert bodies["request"]["encoding"] == "utf-8"
    assert bodies["response"]["body"] is None
    assert bodies["response"]["dropped"] == "too large for one entry"


def test_what_the_gateway_counted_is_its_cost(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.store.cost = 0.25
    monkeypatch.setitem(WHOLE_ROW, "cost_nanos", 1_500_000_000)
    assert api.get("/admin/requests/r1").json["cost_usd"] == 1.5


def test_one_request_without_its_bodies(api: Api) -> None:
    answer = api.get("/admin/requests/r1", query_string="bodies=false").json
    assert (answer["id"], answer["cost_usd"]) == ("r1", None)
    assert "bodies" not in answer


def test_bodies_are_wanted_or_not(api: Api) -> None:
    result = api.get("/admin/requests/r1", query_string="bodies=maybe")
    assert problem(result) == (400, "invalid_query", "bodies")


def test_an_unknown_request(api: Api) -> None:
    result = api.get("/admin/requests/r2")
    assert problem(result)[:2] == (404, "request_not_found")


def test_a_database_that_is_away(api: Api) -> None:
    api.store.error = StoreAway()
    result = api.get("/admin/requests")
    assert problem(result)[:2] == (503, "database_unreachable")
