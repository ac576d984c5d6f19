"""`/admin/keys` over a fake database: the secret is shown once, invalid input is
refused."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

import pytest
from falcon import testing

from libs.common.budgets import shown_terms
from libs.common.contracts.events import Row
from libs.common.errors import StoreAway
from libs.common.store.interface import Actor, Cursor, Page
from libs.common.store.proxy_keys import NewKey
from services.router.admin.keys import OneProxyKey, ProxyKeys
from services.router.admin.schemas.keys import MintedKey, ProxyKeyRow
from services.router.admin.spent import Spent
from tests.support.values.admin import client
from tests.unit.router.admin.test_spent import Spends

CURSOR = Cursor("2026-01-02T03:04:05.678Z", "key_1").encode()


class Rows:
    """One key in SQL, and whatever is added."""

    def __init__(self) -> None:
        self.added: list[NewKey] = []
        self.changes: list[Mapping[str, Any]] = []
        self.revoked = False
        self.asked: list[tuple[int, Cursor | None]] = []
        self.error: Exception | None = None

    def by(self, _: Actor) -> Self:
        return self

    async def add(self, key: NewKey) -> Row:
        if self.error:
            raise self.error
        self.added.append(key)
        return row(id=key.id, name=key.name, prefix=key.prefix)

    async def defaults(self, team_id: str) -> Row:
        defaults = {"requests_per_minute": 9, "pools": ("a",), "budget_usd": 1.5}
        return defaults if team_id == "red" else {}

    async def page(self, limit: int, cursor: Cursor | None) -> Page:
        self.asked.append((limit, cursor))
        return Page((row(),), CURSOR)

    async def get(self, id_: str) -> Row | None:
        return row() if id_ == "key_1" else None

    async def change(self, id_: str, fields: Mapping[str, Any]) -> Row | None:
        self.changes.append(fields)
        return None if self.revoked or id_ != "key_1" else row()

    async def revoke(self, id_: str, at: datetime) -> Row | None:
        return row(enabled=False) if id_ == "key_1" else None


def test_what_a_creation_does_not_say_is_as_its_team_has_it() -> None:
    api = Api()
    bodies: tuple[dict[str, Any], ...] = (
        {"team_id": "red"},
        {
            "team_id": "red",
            "requests_per_minute": None,
            "pools": [],
            "budget_usd": None,
        },
        {"team_id": "blue"},
    )
    for body in bodies:
        assert api.ask("POST", json=body).status_code == 201
    added = [(key.requests_per_minute, key.pools) for key in api.rows.added]
    assert added == [(9, ("a",)), (None, ()), (None, ())]
    assert [key.budget.get("usd") for key in api.rows.added] == [1.5, None, None]


def row(**over: Any) -> Row:
    values: Row = dict.fromkeys(ProxyKeyRow.model_fields)
    values |= {"id": "key_1", "name": "", "prefix": "rpx_abcdef", "pools": []}
    values["queue_weight"] = 1.0
    values["version"] = "v"
    values |= shown_terms({})
    return {**values, "enabled": True, "created_at": "2026-01-01T00:00:00Z", **over}


class Publisher:
    def __init__(self) -> None:
        self.told: list[str] = []

    async def changed(self, id_: str) -> bool:
        self.told.append(id_)
        return False  # Redis is away: the answer is the same


class Api:
    def __init__(self) -> None:
        self.rows, self.publisher = Rows(), Publisher()
        spent = Spent(Spends())
        routes = {
            "/admin/keys": ProxyKeys(self.rows, self.publisher, spent),
            "/admin/keys/{key_id}": OneProxyKey(self.rows, self.publisher, spent),
        }
        self.client = client(routes)

    def ask(self, method: str, path: str = "", **more: Any) -> testing.Result:
        return self.client.simulate_request(method, f"/admin/keys{path}", **more)


@pytest.fixture
def api() -> Api:
    return Api()


def code(result: testing.Result) -> str:
    return str(result.json["error"]["code"])


@pytest.mark.parametrize("body", [b"", b"{}", b'{"name":"ci","pools":["a"]}'])
def test_a_minted_secret_is_shown_and_only_its_hash_is_kept(
    api: Api, body: bytes
) -> None:
    answer = api.ask("POST", body=body)
    assert answer.status_code == 201
    # Never compressed, here or between here and the client.
    assert answer.headers["cache-control"] == "no-store, no-transform"
    shown = MintedKey(**answer.json)
    (key,) = api.rows.added
    assert key.secret_hash == hashlib.sha256(shown.secret.encode()).hexdigest()
    assert shown.secret.startswith(shown.prefix)
    assert len(shown.prefix) == 10
    assert shown.secret not in repr(key)
    assert api.publisher.told == [shown.id]


def test_all_fields_of_a_new_key(api: Api) -> None:
    fields = {
        "name": "nightly",
        "pool_id": "cheap",
        "pools": ["cheap", "fast"],
        "expires_at": "2027-01-01T00:00:00+02:00",
        "requests_per_minute": 60,
        "tokens_per_minute": 90_000,
        "budget_usd": 1.5,
        "budget_time_zone": "Europe/Berlin",
    }
    assert api.ask("POST", json=fields).status_code == 201
    (key,) = api.rows.added
    assert key.expires_at == datetime.fromisoformat(fields["expires_at"])  # type: ignore[arg-type]
    assert (key.name, key.pool_id, key.pools) == ("nightly", "cheap", ("cheap", "fast"))
    assert (key.requests_per_minute, key.tokens_per_minute) == (60, 90_000)
    assert key.budget["usd"] == 1.5
    assert key.budget["time_zone"] == "Europe/Berlin"
    assert "tokens" not in key.budget


NONSENSE = [
    pytest.param({"requests_per_minute": 0}, "requests_per_minute", id="no request"),
    pytest.param({"tokens_per_minute": 1.5}, "tokens_per_minute", id="half a token"),
    pytest.param({"expires_at": "2027-01-01T00:00:00"}, "expires_at", id="no zone"),
    pytest.param(
        {"expires_at": "9999-12-31T23:59:59-12:00"}, "expires_at", id="after all days"
    ),
    pytest.param(
        {"expires_at": "0001-01-01T00:00:00+12:00"}, "expires_at", id="before all days"
    ),
    pytest.param({"expires_at": "soon"}, "expires_at", id="no time"),
    pytest.param({"budget_usd": -1}, "budget_usd", id="negative budget"),
    pytest.param({"budget_usd": 0}, "budget_usd", id="no budget"),
    pytest.param({"budget_usd": 1e30}, "budget_usd", id="absurd budget"),
    pytest.param({"budget_tokens": 0.5}, "budget_tokens", id="half a token in all"),
    pytest.param({"budget_tokens": 10**16}, "budget_tokens", id="absurd tokens"),
    pytest.param({"budget_window": "year"}, "budget_window", id="window"),
    pytest.param({"budget_window": None}, "budget_window", id="null window"),
    pytest.param({"budget_time_zone": "Mars/X"}, "budget_time_zone", id="time zone"),
    pytest.param({"budget_soft_percent": 0}, "budget_soft_percent", id="threshold"),
    pytest.param({"pools": "a"}, "pools", id="no list"),
    pytest.param({"pools": [""]}, "pools.0", id="empty pool"),
    pytest.param({"pool_id": "a\0"}, "pool_id", id="NUL"),
    pytest.param({"name": "x" * 201}, "name", id="long name"),
    pytest.param({"name": None}, "name", id="null name"),
    pytest.param({"secret": "rpx_mine"}, "secret", id="a secret of one's own"),
]


@pytest.mark.parametrize(("method", "path"), [("POST", ""), ("PATCH", "/key_1")])
@pytest.mark.parametrize(("fields", "param"), NONSENSE)
def test_nonsense_is_refused(
    api: Api, method: str, path: str, fields: dict[str, Any], param: str
) -> None:
    answer = api.ask(method, path, json=fields)
    assert (answer.status_code, code(answer)) == (400, "invalid_request")
    assert answer.json["error"]["param"] == param
    assert (api.rows.added, api.rows.changes, api.publisher.told) == ([], [], [])


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{", id="no JSON"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b'{"name":"\\ud800"}', id="lone surrogate"),
    ],
)
def test_a_body_that_cannot_be_read(api: Api, body: bytes) -> None:
    answer = api.ask("POST", body=body)
    assert (answer.status_code, code(answer)) == (400, "invalid_request")


def test_a_list_goes_on_by_its_cursor(api: Api) -> None:
    answer = api.ask("GET", params={"limit": "7", "cursor": CURSOR})
    assert answer.json["next_cursor"] == CURSOR
    assert [ProxyKeyRow(**shown).id for shown in answer.json["data"]] == ["key_1"]
    assert api.rows.asked == [(7, Cursor.decode(CURSOR))]


@pytest.mark.parametrize(
    "params",
    [{"limit": "0"}, {"limit": "501"}, {"limit": "x"}, {"cursor": "x"}],
)
def test_a_list_that_cannot_be(api: Api, params: dict[str, str]) -> None:
    answer = api.ask("GET", params=params)
    assert (answer.status_code, code(answer)) == (400, "invalid_query")


def test_only_what_is_named_changes(api: Api) -> None:
    fields = {"enabled": False, "tokens_per_minute": None}
    assert api.ask("PATCH", "/key_1", json=fields).json == row()
    assert api.rows.changes == [fields]
    assert api.publisher.told == ["key_1"]


def test_a_revoked_key_cannot_be_changed(api: Api) -> None:
    api.rows.revoked = True
    answer = api.ask("PATCH", "/key_1", json={"enabled": True})
    assert (answer.status_code, code(answer)) == (409, "proxy_key_revoked")
    assert api.publisher.told == []


def test_revoking(api: Api) -> None:
    answer = api.ask("DELETE", "/key_1")
    assert (answer.status_code, answer.json["enabled"]) == (200, False)
    assert api.publisher.told == ["key_1"]


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_a_key_that_is_not_there(api: Api, method: str) -> None:
    answer = api.ask(method, "/key_2", body="{}")
    assert (answer.status_code, code(answer)) == (404, "proxy_key_not_found")


def test_without_a_database_nothing_is_minted(api: Api) -> None:
    api.rows.error = StoreAway()
    answer = api.ask("POST")
    assert (answer.status_code, code(answer)) == (503, "database_unreachable")
    assert api.publisher.told == []
