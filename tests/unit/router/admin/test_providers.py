"""What `/admin/providers` refuses, and what becomes of a key."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import falcon
import falcon.asgi
import pytest
from cryptography.fernet import Fernet
from falcon import testing

from libs.common.contracts import Row
from libs.common.errors import ProxyError
from libs.common.sealing import Sealer
from services.router.admin.provider_tests import ModelTest, ProviderTest
from services.router.admin.providers import OneProvider, Providers, Surroundings
from services.router.problems import Problem, say
from tests.unit.router.test_catalogue import resource

SEALER = Sealer([Fernet.generate_key().decode()])
SECRET = "sk-very-secret"
GIVEN = {"id": "acme", "api_key": SECRET}


class Rows:
    """SQL in a dictionary."""

    def __init__(self) -> None:
        self.kept: dict[str, Row] = {}
        self.aliased = False

    async def providers(self) -> list[Row]:
        return list(self.kept.values())

    async def provider(self, id_: str) -> Row | None:
        return self.kept.get(id_)

    async def add_provider(self, fields: Mapping[str, Any], at: datetime) -> Row | None:
        if fields["id"] in self.kept:
            return None
        times = dict.fromkeys(("created_at", "updated_at"), at.isoformat())
        self.kept[fields["id"]] = {**fields, **times}
        return self.kept[fields["id"]]

    async def change_provider(
        self, id_: str, fields: Mapping[str, Any], at: datetime
    ) -> Row | None:
        if id_ in self.kept:
            self.kept[id_] = {**self.kept[id_], **fields}
        return self.kept.get(id_)

    async def delete_provider(self, id_: str) -> bool:
        return not self.aliased and self.kept.pop(id_, None) is not None

    async def model(self, alias: str) -> Row | None:
        return {"alias": alias, "provider_id": "acme", "upstream_id": "gpt"}


class Told:
    def __init__(self) -> None:
        self.times = 0

    async def changed(self) -> None:
        self.times += 1


class Health:
    """Says that every key works, and notes what it was asked."""

    def __init__(self) -> None:
        self.wanted: list[str] = []
        self.away = False
        self.answers = [{"key": "acme", "ok": True, "detail": "", "lists_model": False}]

    async def examine(self, wanted: str = "") -> Any:
        if self.away:
            raise Problem(503, "health_unreachable", "Nobody answered.")
        self.wanted.append(wanted)
        return self.answers


class Api:
    def __init__(self, sealer: Sealer = SEALER) -> None:
        self.rows, self.told, self.health = Rows(), Told(), Health()
        around = Surroundings(sealer, {}, (resource(1),), "https://api.openai.com/v1")
        app: falcon.asgi.App[Any, Any] = falcon.asgi.App()
        for kind in (Exception, ProxyError, falcon.HTTPError):
            app.add_error_handler(kind, say)
        rows: Any = self.rows
        app.add_route("/admin/providers", Providers(rows, self.told, around))
        app.add_route("/admin/providers/test", ProviderTest(rows, self.health, around))
        app.add_route("/admin/models/test", ModelTest(rows, self.health, around))
        app.add_route(
            "/admin/providers/{provider_id}", OneProvider(rows, self.told, around)
        )
        self.client = testing.TestClient(app)

    def ask(self, method: str, path: str = "", **body: Any) -> testing.Result:
        url = path if path.startswith("/admin") else f"/admin/providers{path}"
        return self.client.simulate_request(method, url, json=body)


@pytest.fixture
def api() -> Api:
    return Api()


def code(result: testing.Result) -> tuple[int, str]:
    assert SECRET not in result.text
    return result.status_code, str(result.json["error"]["code"])


def test_a_key_is_sealed_and_never_shown(api: Api) -> None:
    answer = api.ask("POST", **GIVEN)
    assert answer.status_code == 201
    assert answer.json["api_key_configured"] is True
    assert answer.json["base_url"] == "https://api.openai.com/v1"
    assert answer.json["name"] == "acme"
    (row,) = api.rows.kept.values()
    assert SECRET not in repr(row)
    assert SEALER.open(row["api_key_sealed"]) == SECRET
    for shown in (answer, api.ask("GET"), api.ask("GET", "/acme")):
        assert SECRET not in shown.text
        assert row["api_key_sealed"] not in shown.text
    assert api.told.times == 1


def test_without_an_encryption_key_no_key_is_taken() -> None:
    api = Api(Sealer(()))
    for path in ("", "/test"):
        answer = api.ask("POST", path, **GIVEN)
        assert code(answer) == (400, "encryption_key_missing")
        assert "PROXY_SECRET_ENCRYPTION_KEY" in answer.text
    assert api.rows.kept == {}
    referred = api.ask("POST", id="acme", credential_ref="env:ACME")
    assert referred.status_code == 201
    assert code(api.ask("PATCH", "/acme", api_key=SECRET))[1] == (
        "encryption_key_missing"
    )


def test_key_and_reference_replace_each_other(api: Api) -> None:
    api.ask("POST", **GIVEN)
    changed = api.ask("PATCH", "/acme", credential_ref="env:ACME").json
    assert (changed["api_key_configured"], changed["credential_ref"]) == (
        False,
        "env:ACME",
    )
    changed = api.ask("PATCH", "/acme", api_key=SECRET).json
    assert (changed["api_key_configured"], changed["credential_ref"]) == (True, None)
    assert code(api.ask("PATCH", "/acme", api_key=None)) == (400, "invalid_request")


def test_keys_stay_at_their_address(api: Api) -> None:
    api.ask("POST", **GIVEN)
    same = api.ask("PATCH", "/acme", base_url="https://api.openai.com/v1/")
    assert same.status_code == 200
    answer = api.ask("PATCH", "/acme", base_url="https://evil.example/v1")
    assert code(answer) == (400, "invalid_request")
    moved = api.ask(
        "PATCH", "/acme", base_url="https://new.example/v1", api_key="sk-new"
    )
    assert moved.json["base_url"] == "https://new.example/v1"
    api.ask("PATCH", "/acme", credential_ref="env:ACME")
    moved = api.ask("PATCH", "/acme", base_url="https://newer.example/v1")
    assert moved.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "", {**GIVEN, "id": "openai-1"}, (409, "resource_id_taken")),
        ("POST", "", {**GIVEN, "provider_type": "custom"}, (400, "invalid_request")),
        ("POST", "", {"id": "acme"}, (400, "invalid_request")),
        ("POST", "", {**GIVEN, "api_key": f"{SECRET} x"}, (400, "invalid_request")),
        ("POST", "", {**GIVEN, "api_key": " , "}, (400, "invalid_request")),
        ("POST", "", {**GIVEN, "base_url": "http://"}, (400, "invalid_request")),
        ("PATCH", "/nobody", {"weight": 2}, (404, "provider_not_found")),
        ("DELETE", "/nobody", {}, (404, "provider_not_found")),
    ],
)
def test_what_is_refused(
    api: Api,
    method: str,
    path: str,
    body: dict[str, Any],
    expected: tuple[int, str],
) -> None:
    assert code(api.ask(method, path, **body)) == expected
    assert api.told.times == 0


def test_a_provider_in_use_stays(api: Api) -> None:
    api.ask("POST", **GIVEN)
    api.rows.aliased = True
    assert code(api.ask("DELETE", "/acme")) == (409, "provider_in_use")
    api.rows.aliased = False
    assert api.ask("DELETE", "/acme").json["id"] == "acme"
