"""`/admin/models` over SQL in a dictionary."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

import pytest

from libs.common.contracts.events import Row
from libs.common.providers.registry import targets_of
from libs.common.store.interface import Actor
from services.router.admin.registry.models import Models, OneModel
from services.router.admin.schemas.registry import ModelRow
from tests.support.values.admin import client, problem

ACME = {"provider_id": "acme", "upstream_id": "gpt-5"}
OTHER = {"provider_id": "other", "upstream_id": "gpt-b"}
GIVEN = {"alias": "team/fast", "provider_id": "acme", "upstream_id": "gpt-5"}


class Rows:
    def __init__(self) -> None:
        self.kept: dict[str, Row] = {}
        self.vanishes = False  # between two statements

    def by(self, _: Actor) -> Self:
        return self

    async def provider(self, id_: str) -> Row | None:
        return {"id": id_} if id_ in ("acme", "other") else None

    async def models(self) -> list[Row]:
        return list(self.kept.values())

    async def model(self, alias: str) -> Row | None:
        return self.kept.get(alias)

    async def add_model(self, fields: Mapping[str, Any], at: datetime) -> Row | None:
        if fields["alias"] in self.kept:
            return None
        times = dict.fromkeys(("created_at", "updated_at"), at.isoformat())
        targets = targets_of(fields, fields["targets"])
        self.kept[fields["alias"]] = {**fields, **times, "targets": targets}
        return self.kept[fields["alias"]]

    async def change_model(
        self, alias: str, fields: Mapping[str, Any], at: datetime
    ) -> Row | None:
        if alias in self.kept:
            row = {**self.kept[alias], **fields}
            self.kept[alias] = {**row, "targets": targets_of(row, row["targets"])}
        return self.kept.get(alias)

    async def delete_model(self, alias: str) -> bool:
        return not self.vanishes and self.kept.pop(alias, None) is not None


class Api:
    def __init__(self) -> None:
        self.rows, self.changes = Rows(), 0
        routes = {
            "/admin/models": Models(self.rows, self),
            "/admin/models/{alias:path}": OneModel(self.rows, self),
        }
        self.client = client(routes)

    async def changed(self) -> None:
        self.changes += 1

    def ask(self, method: str, alias: str = "", /, **body: Any) -> Any:
        path = f"/admin/models{'/' if alias else ''}{alias}"
        return self.client.simulate_request(method, path, json=body)


@pytest.fixture
def api() -> Api:
    made = Api()
    assert made.ask("POST", **GIVEN).status_code == 201
    made.changes = 0
    return made


def test_an_alias_is_registered_and_the_gateways_are_told() -> None:
    api = Api()
    answer = api.ask("POST", **GIVEN)
    row = ModelRow(**answer.json)
    assert (answer.status_code, row.alias, row.enabled) == (201, "team/fast", True)
    assert api.changes == 1


def test_an_alias_may_have_slashes(api: Api) -> None:
    assert api.ask("GET", "team/fast").json["upstream_id"] == "gpt-5"


def test_all_of_them(api: Api) -> None:
    told = api.ask("GET").json
    assert [row["alias"] for row in told["data"]] == ["team/fast"]
    assert told["next_cursor"] is None


def test_what_is_named_changes(api: Api) -> None:
    assert api.ask("PATCH", "team/fast", enabled=False).json["enabled"] is False
    told = api.ask("PATCH", "team/fast", provider_id="other").json
    assert (told["provider_id"], told["upstream_id"]) == ("other", "gpt-5")
    assert (told["enabled"], api.changes) == (False, 2)


def test_a_deleted_alias_is_shown_once_more(api: Api) -> None:
    assert api.ask("DELETE", "team/fast").json["alias"] == "team/fast"
    assert api.changes == 1
    assert problem(api.ask("GET", "team/fast"))[:2] == (404, "model_not_found")


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_an_alias_that_is_not_there(api: Api, method: str) -> None:
    assert problem(api.ask(method, "nobody"))[:2] == (404, "model_not_found")
    assert api.changes == 0


def test_an_alias_that_somebody_else_deleted_meanwhile(api: Api) -> None:
    api.rows.vanishes = True
    assert problem(api.ask("DELETE", "team/fast"))[:2] == (404, "model_not_found")
    assert api.changes == 0


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (GIVEN, (409, "model_exists", "alias")),
        (
            {**GIVEN, "provider_id": "nobody"},
            (400, "provider_not_found", "provider_id"),
        ),
        ({**GIVEN, "alias": "test"}, (400, "invalid_request", "alias")),
        ({**GIVEN, "alias": "/fast"}, (400, "invalid_request", "alias")),
        ({**GIVEN, "upstream_id": ""}, (400, "invalid_request", "upstream_id")),
        ({**GIVEN, "upstream_id": "a\0"}, (400, "invalid_request", "upstream_id")),
        ({"alias": "a"}, (400, "invalid_request", "provider_id")),
        ({**GIVEN, "surprise": 1}, (400, "invalid_request", "surprise")),
        ({**GIVEN, "targets": [ACME]}, (400, "invalid_request", None)),
        ({"alias": "a", "targets": []}, (400, "invalid_request", "targets")),
        ({"alias": "a", "targets": None}, (400, "invalid_request", "provider_id")),
        ({"alias": "a", "targets": [ACME, ACME]}, (400, "invalid_request", "targets")),
        (
            {"alias": "a", "targets": [ACME | {"upstream_id": c} for c in "abcdefghi"]},
            (400, "invalid_request", "targets"),
        ),
        (
            {"alias": "a", "targets": [ACME, OTHER | {"weight": 0}]},
            (400, "invalid_request", "targets.1.weight"),
        ),
        (
            {"alias": "a", "targets": [ACME | {"weight": 1e9}]},
            (400, "invalid_request", "targets.0.weight"),
        ),
        (
            {"alias": "a", "targets": [ACME | {"priority": -1}]},
            (400, "invalid_request", "targets.0.priority"),
        ),
        (
            {"alias": "a", "targets": [ACME | {"priority": 101}]},
            (400, "invalid_request", "targets.0.priority"),
        ),
        (
            {"alias": "a", "targets": [ACME, OTHER | {"provider_id": "nobody"}]},
            (400, "provider_not_found", "targets.1.provider_id"),
        ),
    ],
)  # fmt: skip
def test_what_is_refused(
    api: Api, body: dict[str, Any], expected: tuple[int, str, str]
) -> None:
    assert problem(api.ask("POST", **body)) == expected
    assert (len(api.rows.kept), api.changes) == (1, 0)


def test_an_alias_is_not_led_to_nobody(api: Api) -> None:
    result = api.ask("PATCH", "team/fast", provider_id="nobody")
    assert problem(result) == (400, "provider_not_found", "provider_id")
    assert api.changes == 0


# Several targets ------------------------------------------------------------------

SHOWN = {"weight": 1.0, "priority": 0}


def test_targets_are_shown_always(api: Api) -> None:
    assert api.ask("GET", "team/fast").json["targets"] == [ACME | SHOWN]


def test_targets_are_sorted_by_priority_and_the_first_is_the_single_one() -> None:
    api = Api()
    given = [ACME | {"priority": 1}, OTHER | {"weight": 2}]
    told = api.ask("POST", alias="fast", targets=given).json
    row = ModelRow(**told)
    assert (row.provider_id, row.upstream_id) == ("other", "gpt-b")
    assert told["targets"] == [
        OTHER | {"weight": 2.0, "priority": 0},
        ACME | {"weight": 1.0, "priority": 1},
    ]


def test_targets_are_replaced_as_a_whole(api: Api) -> None:
    told = api.ask("PATCH", "team/fast", targets=[OTHER, ACME]).json
    assert told["provider_id"] == "other"
    assert told["targets"] == [OTHER | SHOWN, ACME | SHOWN]
    # One of the single form would be ambiguous, both are one target.
    result = api.ask("PATCH", "team/fast", upstream_id="gpt-6")
    assert problem(result) == (400, "invalid_request", "targets")
    assert "2 targets" in result.json["error"]["message"]
    told = api.ask("PATCH", "team/fast", provider_id="acme", upstream_id="gpt-6").json
    assert told["targets"] == [ACME | SHOWN | {"upstream_id": "gpt-6"}]
    result = api.ask("PATCH", "team/fast", targets=[ACME], upstream_id="x")
    assert problem(result)[:2] == (400, "invalid_request")
    result = api.ask("PATCH", "team/fast", targets=[OTHER | {"provider_id": "no"}])
    assert problem(result) == (400, "provider_not_found", "targets.0.provider_id")
