"""`/admin/tokens` and `/admin/audit` over a fake database."""

from datetime import datetime
from typing import Any, Self

import pytest
from falcon import testing

from libs.common.admin_token import token_hash
from libs.common.contracts.events import Row
from libs.common.store.admin.audit_log import AuditQuery
from libs.common.store.interface import ANYONE, Actor, Page
from services.router.admin.access import AdminTokens, Audit, OneAdminToken
from tests.support.values.admin import client, problem

AT = "2026-01-01T00:00:00.000Z"


class Rows:
    def __init__(self) -> None:
        self.kept: dict[str, Row] = {}
        self.hashes: list[str] = []
        self.actors: list[str] = []

    def by(self, actor: Actor) -> Self:
        self.actors.append(actor.name)
        return self

    async def add(
        self, name: str, role: str, token_hash: str, at: datetime
    ) -> Row | None:
        if name in self.kept:
            return None
        self.hashes.append(token_hash)
        self.kept[name] = {"name": name, "role": role, "created_at": AT}
        return self.kept[name]

    async def all(self) -> list[Row]:
        return list(self.kept.values())

    async def delete(self, name: str) -> Row | None:
        return self.kept.pop(name, None)


class Log:
    def __init__(self) -> None:
        self.asked: list[AuditQuery] = []

    async def page(self, query: AuditQuery) -> Page:
        self.asked.append(query)
        row = dict.fromkeys(
            ("id", "actor", "action", "object_type", "object_id", "created_at"), "x"
        )
        both = {"name": {"before": None, "after": 1}}
        return Page(({**row, "address": None, "peer": None, "changes": both},), "more")


class Api:
    def __init__(self) -> None:
        self.rows, self.log, self.changes = Rows(), Log(), 0
        routes = {
            "/admin/tokens": AdminTokens(self.rows, self),
            "/admin/tokens/{name}": OneAdminToken(self.rows, self),
            "/admin/audit": Audit(self.log),
        }
        self.client = client(routes)

    def changed(self) -> None:
        self.changes += 1

    def mint(self, **body: Any) -> testing.Result:
        return self.client.simulate_post("/admin/tokens", json=body)


@pytest.fixture
def api() -> Api:
    return Api()


def test_a_token_is_shown_once_and_its_hash_is_kept(api: Api) -> None:
    made = api.mint(name="ann", role="admin")
    assert made.status_code == 201
    token = made.json["token"]
    assert api.rows.hashes == [token_hash(token.encode())]
    listed = api.client.simulate_get("/admin/tokens")
    assert [row["name"] for row in listed.json["data"]] == ["ann"]
    assert token not in listed.text
    gone = api.client.simulate_delete("/admin/tokens/ann")
    assert gone.json == {"name": "ann", "role": "admin", "created_at": AT}
    assert api.changes == 2
    assert api.rows.actors == [ANYONE, ANYONE]  # without the check of tokens


def test_refusals(api: Api) -> None:
    api.mint(name="ann")
    assert problem(api.mint(name="ann")) == (409, "admin_token_exists", "name")
    assert problem(api.mint(name="default")) == (400, "invalid_request", "name")
    gone = api.client.simulate_delete("/admin/tokens/bob")
    assert problem(gone) == (404, "admin_token_not_found", None)
    assert api.changes == 1


def test_the_log_is_asked_for_a_page(api: Api) -> None:
    params = {"limit": "7", "actor": "ann", "object_id": "red", "object_type": ""}
    answer = api.client.simulate_get("/admin/audit", params=params)
    assert answer.json["next_cursor"] == "more"
    assert answer.json["data"][0]["changes"]["name"] == {"before": None, "after": 1}
    assert api.log.asked == [AuditQuery(limit=7, actor="ann", object_id="red")]
