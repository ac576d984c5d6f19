"""`/admin/teams` over a fake database."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

import pytest
from falcon import testing

from libs.common.contracts.events import Row
from libs.common.store.interface import Actor
from services.router.admin.spent import Spent
from services.router.admin.teams import OneTeam, Teams
from tests.support.values.admin import client
from tests.unit.router.admin.test_spent import Spends

AT = "2026-01-01T00:00:00.000Z"


class Rows:
    """Teams, of which `kept` have keys."""

    def __init__(self) -> None:
        self.teams: dict[str, Row] = {}
        self.kept: set[str] = set()

    def by(self, _: Actor) -> Self:
        return self

    async def add(self, fields: Mapping[str, Any], at: datetime) -> Row | None:
        if fields["id"] in self.teams:
            return None
        self.teams[fields["id"]] = {**fields, "keys": 0, "created_at": AT}
        return self.teams[fields["id"]]

    async def page(self, limit: int, after: str) -> list[Row]:
        return [self.teams[id_] for id_ in sorted(self.teams) if id_ > after][:limit]

    async def get(self, id_: str) -> Row | None:
        return self.teams.get(id_)

    async def members(self, id_: str, since: datetime) -> list[Row]:
        used = {"requests": 2, "input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
        shown = {"name": "ci", "prefix": "rpx_1", "enabled": True, "last_used_at": AT}
        return [{"id": "k1", **shown, **used}, {"id": "k2", **used}]

    async def change(self, id_: str, fields: Mapping[str, Any]) -> Row | None:
        if id_ in self.teams:
            self.teams[id_].update(fields)
        return self.teams.get(id_)

    async def delete(self, id_: str) -> bool:
        return id_ not in self.kept and self.teams.pop(id_, None) is not None


class Publisher:
    def __init__(self) -> None:
        self.compared = 0

    def compare_soon(self) -> None:
        self.compared += 1


class Api:
    def __init__(self) -> None:
        self.rows, self.publisher = Rows(), Publisher()
        spent = Spent(Spends())
        routes = {
            "/admin/teams": Teams(self.rows, self.publisher, spent),
            "/admin/teams/{team_id}": OneTeam(self.rows, self.publisher, spent),
        }
        self.client = client(routes)

    def ask(self, method: str, path: str = "", **more: Any) -> testing.Result:
        return self.client.simulate_request(method, f"/admin/teams{path}", **more)


@pytest.fixture
def api() -> Api:
    return Api()


def test_a_team_is_made_changed_and_deleted(api: Api) -> None:
    policy = {"models": ["gpt-*"], "ip_allow": ["10.0.0.0/8"]}
    made = api.ask("POST", json={"id": "red", "policy": policy})
    assert made.status_code == 201
    assert api.rows.teams["red"]["policy"] == policy  # without rules that allow all
    shown = api.ask("GET", "/red").json
    members, usage = shown.pop("members"), shown.pop("usage")
    assert shown == made.json
    assert [(each["id"], each.get("name")) for each in members] == [
        ("k1", "ci"),
        ("k2", None),
    ]
    assert usage.pop("since").endswith("Z")
    assert usage == {
        "requests": 4, "input_tokens": 6, "output_tokens": 8, "total_tokens": 14,
    }  # fmt: skip
    changed = api.ask("PATCH", "/red", json={"policy": None})
    assert (changed.json["policy"], changed.json["name"]) == (None, "")
    assert api.publisher.compared == 2
    assert api.ask("DELETE", "/red").status_code == 200
    assert api.rows.teams == {}


def test_an_empty_policy_is_none(api: Api) -> None:
    api.ask("POST", json={"id": "red", "policy": {}})
    assert api.rows.teams["red"]["policy"] is None


def test_defaults_of_its_keys(api: Api) -> None:
    defaults = {"requests_per_minute": 60, "pools": ["a"], "budget_usd": 1.5}
    made = api.ask("POST", json={"id": "red", "key_defaults": defaults})
    assert made.status_code == 201
    assert api.rows.teams["red"]["key_defaults"] == defaults
    api.ask("PATCH", "/red", json={"key_defaults": {}})
    assert api.rows.teams["red"]["key_defaults"] is None
    refused = api.ask("PATCH", "/red", json={"key_defaults": {"pool": "a"}})
    assert refused.json["error"]["param"] == "key_defaults.pool"


def test_pages(api: Api) -> None:
    for id_ in ("a", "b", "c"):
        api.ask("POST", json={"id": id_})
    first = api.ask("GET", params={"limit": 2}).json
    assert [row["id"] for row in first["data"]] == ["a", "b"]
    rest = api.ask("GET", params={"after": first["next_after"]}).json
    assert ([row["id"] for row in rest["data"]], rest["next_after"]) == (["c"], None)


def test_refusals(api: Api) -> None:
    for method, path in (("GET", "/x"), ("PATCH", "/x"), ("DELETE", "/x")):
        found = api.ask(method, path, json={} if method == "PATCH" else None)
        error = found.json["error"]
        assert (found.status_code, error["code"]) == (404, "team_not_found")
    api.ask("POST", json={"id": "red"})
    again = api.ask("POST", json={"id": "red"})
    assert (again.status_code, again.json["error"]["code"]) == (409, "team_exists")
    api.rows.kept.add("red")
    kept = api.ask("DELETE", "/red")
    assert (kept.status_code, kept.json["error"]["code"]) == (409, "team_has_keys")


@pytest.mark.parametrize(
    ("policy", "param"),
    [
        ({"models": ["a b"]}, "policy.models"),
        ({"endpoints": ["/responses"]}, "policy.endpoints"),
        ({"max_reasoning_effort": "huge"}, "policy.max_reasoning_effort"),
        ({"service_tiers": "flex"}, "policy.service_tiers"),
        ({"max_output_tokens": 0}, "policy.max_output_tokens"),
        ({"ip_allow": ["10.0.0.1/8"]}, "policy.ip_allow"),
        ({"modles": []}, "policy.modles"),
    ],
)
def test_a_wrong_policy(api: Api, policy: Any, param: str) -> None:
    found = api.ask("POST", json={"id": "red", "policy": policy})
    assert found.status_code == 400
    assert found.json["error"]["param"].startswith(param)
    assert api.rows.teams == {}
