"""What `/admin/providers` refuses, and how keys are stored."""

import json
import socket
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

import pytest
from cryptography.fernet import Fernet
from falcon import testing

from libs.common.contracts.events import Row
from libs.common.providers.resolver import AddressInfo, Resolver
from libs.common.providers.rules import ProviderRules
from libs.common.providers.sealing import Sealer
from libs.common.settings.http_proxies import Egress
from libs.common.store.interface import Actor
from services.router.admin.registry.destinations import DestinationCheck
from services.router.admin.registry.provider_tests import ModelTest, ProviderTest
from services.router.admin.registry.providers import (
    OneProvider,
    ProviderContext,
    Providers,
)
from services.router.errors import Problem
from tests.support.values.admin import client
from tests.unit.router.test_catalogue import resource

SEALER = Sealer([Fernet.generate_key().decode()])
SECRET = "sk-very-secret"
GIVEN = {"id": "acme", "api_key": SECRET}
NAMED = {
    "metadata.example": ["169.254.169.254"],
    "mapped.example": ["::ffff:169.254.169.254"],
    "both.example": ["169.254.169.254", "192.0.2.1"],
    "here.example": ["127.0.0.1"],
    "redis.internal": ["192.0.2.6"],
    "cache.example": ["192.0.2.6"],
    "intranet.example": ["10.0.0.7"],
}


CLOSED = {"PROXY_PROVIDER_PRIVATE_ADDRESSES": "false"}
UPSTREAM = {"PROXY_UPSTREAM_BASE_URL": "http://10.0.0.7:81/v1"}
PROXIED = {"HTTP_PROXY": "http://proxy.example:3128"}
STACK = {
    "PROXY_REDIS_URL": "redis://redis.internal:7000/0",
    "PROXY_DATABASE_URL": "postgresql://u:p@sql.internal/db",
    "PROXY_ROUTER_URL": "http://rooter:8001",
}


class Rows:
    """SQL in a dictionary."""

    def __init__(self) -> None:
        self.kept: dict[str, Row] = {}
        self.aliased = False
        self.targets: list[Row] = []  # of the alias
        self.hidden = False  # from the list
        self.vanishes = False  # before it is changed

    def by(self, _: Actor) -> Self:
        return self

    async def providers(self) -> list[Row]:
        return [] if self.hidden else list(self.kept.values())

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
        if self.vanishes:
            del self.kept[id_]
        if id_ in self.kept:
            self.kept[id_] = {**self.kept[id_], **fields}
        return self.kept.get(id_)

    async def delete_provider(self, id_: str) -> bool:
        return not self.aliased and self.kept.pop(id_, None) is not None

    async def model(self, alias: str) -> Row | None:
        target = {"provider_id": "acme", "upstream_id": "gpt"}
        return {"alias": alias, **target, "targets": self.targets or [target]}


class Told:
    def __init__(self) -> None:
        self.times = 0

    async def changed(self) -> None:
        self.times += 1


def verdict(key: str = "acme", **given: Any) -> dict[str, Any]:
    whole = {"key": key, "ok": True, "verdict": "ok", "detail": "", "latency_ms": 1.5}
    return {**whole, "models": [], "lists_model": True, **given}


class Health:
    """Reports that every key works, and records requests."""

    def __init__(self) -> None:
        self.wanted: list[str] = []
        self.away = False
        self.answers = [verdict(lists_model=False)]

    async def examine(self, wanted: str = "") -> Any:
        if self.away:
            raise Problem(503, "health_unreachable", "Nobody answered.")
        self.wanted.append(wanted)
        return self.answers


class Api:
    def __init__(self, sealer: Sealer = SEALER, **settings: str) -> None:
        self.rows, self.told, self.health = Rows(), Told(), Health()
        self.looked_up: list[str] = []
        rules = ProviderRules.read(settings)
        context = ProviderContext(
            sealer,
            {},
            (resource(1),),
            "https://api.openai.com/v1",
            DestinationCheck(rules, Egress.read(settings), Resolver(self._look_up)),
        )
        rows: Any = self.rows
        self.client = client(
            {
                "/admin/providers": Providers(rows, self.told, context),
                "/admin/providers/test": ProviderTest(rows, self.health, context),
                "/admin/models/test": ModelTest(rows, self.health, context),
                "/admin/providers/{provider_id}": OneProvider(rows, self.told, context),
            }
        )

    async def _look_up(self, host: str, port: int) -> list[AddressInfo]:
        """Names of addresses that are forbidden for providers, and of an allowed
        one."""
        self.looked_up.append(host)
        if host == "unknown.example":
            raise OSError
        named = NAMED.get(host, ["192.0.2.1"])
        return [
            (int(socket.AF_INET), int(socket.SOCK_STREAM), 6, "", (address, port))
            for address in named
        ]

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
    referred = api.ask("POST", id="acme", credential_ref="env:PROVIDER_ACME")
    assert referred.status_code == 201
    assert code(api.ask("PATCH", "/acme", api_key=SECRET))[1] == (
        "encryption_key_missing"
    )


def test_key_and_reference_replace_each_other(api: Api) -> None:
    api.ask("POST", **GIVEN)
    changed = api.ask("PATCH", "/acme", credential_ref="env:PROVIDER_ACME").json
    assert (changed["api_key_configured"], changed["credential_ref"]) == (
        False,
        "env:PROVIDER_ACME",
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
    api.ask("PATCH", "/acme", credential_ref="env:PROVIDER_ACME")
    answer = api.ask("PATCH", "/acme", base_url="https://newer.example/v1")
    assert code(answer) == (400, "invalid_request")
    assert "credential_ref" in answer.text
    moved = api.ask(
        "PATCH", "/acme", base_url="https://newer.example/v1",
        credential_ref="env:PROVIDER_ACME",
    )  # fmt: skip
    assert moved.status_code == 200
    api.ask("PATCH", "/acme", base_url="https://newer.example/v1")
    downgraded = api.ask("PATCH", "/acme", base_url="http://newer.example/v1")
    assert code(downgraded) == (400, "invalid_request")


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


AZURE = {
    **GIVEN, "provider_type": "azure",
    "base_url": "https://name.openai.azure.com/openai/v1/",
}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "how"),
    [
        (GIVEN, "bearer"),
        ({**GIVEN, "auth_type": "api_key"}, "api_key"),
        (AZURE, "api_key"),
        ({**AZURE, "auth_type": "bearer"}, "bearer"),
        ({**AZURE, "auth_type": None}, "api_key"),
    ],
)
def test_how_a_key_is_sent_follows_from_the_type(
    api: Api, given: dict[str, Any], how: str
) -> None:
    assert api.ask("POST", **given).json["auth_type"] == how
    assert api.ask("PATCH", "/acme", weight=2).json["auth_type"] == how
    api.ask("POST", "/test", id="acme")
    api.ask("POST", "/test", **given)
    assert [json.loads(w)["auth_type"] for w in api.health.wanted] == [how, how]


@pytest.mark.parametrize(
    "base_url",
    [None, "https://name.openai.azure.com", "https://name.openai.azure.com/openai"],
)
def test_an_azure_address_ends_in_openai_v1(api: Api, base_url: str | None) -> None:
    for path in ("", "/test"):
        refused = api.ask("POST", path, **{**AZURE, "base_url": base_url})
        assert code(refused) == (400, "invalid_request")
        assert refused.json["error"]["param"] == "base_url"
        assert "https://NAME.openai.azure.com/openai/v1" in refused.text


def test_a_change_of_the_type_is_checked_and_sets_how_the_key_is_sent(api: Api) -> None:
    api.ask("POST", **GIVEN)
    refused = api.ask("PATCH", "/acme", provider_type="azure")
    assert code(refused) == (400, "invalid_request")
    changed = {**AZURE}
    del changed["id"]
    assert api.ask("PATCH", "/acme", **changed).json["auth_type"] == "api_key"
    same = {"provider_type": "azure", "auth_type": "bearer"}
    assert api.ask("PATCH", "/acme", **same).json["auth_type"] == "bearer"
    # Not a new type: what was chosen stays.
    kept = api.ask("PATCH", "/acme", provider_type="azure").json
    assert kept["auth_type"] == "bearer"
    assert api.ask("PATCH", "/acme", auth_type=None).json["auth_type"] == "api_key"
    # The stored key stays at its address, which an openai provider may have too.
    back = api.ask("PATCH", "/acme", provider_type="openai").json
    assert (back["auth_type"], back["base_url"]) == ("bearer", kept["base_url"])


def test_an_id_is_registered_once(api: Api) -> None:
    api.ask("POST", **GIVEN)
    again = api.ask("POST", **GIVEN)
    assert code(again) == (409, "provider_exists")
    assert "PATCH /admin/providers/acme" in again.text
    # Another router was faster.
    api.rows.hidden = True
    assert code(api.ask("POST", **GIVEN)) == (409, "provider_exists")


def test_a_provider_that_was_deleted_meanwhile(api: Api) -> None:
    api.ask("POST", **GIVEN)
    api.rows.vanishes = True
    assert code(api.ask("PATCH", "/acme", weight=2)) == (404, "provider_not_found")


def test_a_provider_in_use_stays(api: Api) -> None:
    api.ask("POST", **GIVEN)
    api.rows.aliased = True
    assert code(api.ask("DELETE", "/acme")) == (409, "provider_in_use")
    api.rows.aliased = False
    assert api.ask("DELETE", "/acme").json["id"] == "acme"


ADDRESSES = [
    "http://169.254.169.254/v1",
    "http://169.254.169.254./v1",
    "http://2852039166/v1",
    "http://0xa9fea9fe/v1",
    "http://0251.0376.0251.0376/v1",
    "http://169.254.43518/v1",
    "http://[::ffff:169.254.169.254]/v1",
    "http://[::ffff:a9fe:a9fe]/v1",
    "http://[2002:a9fe:a9fe::1]/v1",
    "http://[64:ff9b::a9fe:a9fe]/v1",
    "http://[fe80::1]/v1",
    "http://[fe80::1%25lo]/v1",
    "http://[fd00:ec2::254]/v1",
    "http://100.100.100.200/v1",
    "http://metadata.google.internal/v1",
    "http://Metadata.Google.Internal./v1",
    "http://0.0.0.0:9/v1",
    "http://[::]/v1",
    "http://224.0.0.1/v1",
    "http://[ff02::1]/v1",
    "http://255.255.255.255/v1",
]


@pytest.mark.parametrize("base_url", ADDRESSES)
def test_a_provider_may_be_at_no_metadata_address(api: Api, base_url: str) -> None:
    """Refused at registration and at tests, without dialing."""
    given = {**GIVEN, "provider_type": "custom", "base_url": base_url}
    assert code(api.ask("POST", **given)) == (400, "address_not_allowed")
    del given["provider_type"]
    assert code(api.ask("POST", "/test", **given)) == (400, "address_not_allowed")
    api.ask("POST", **GIVEN)
    moved = api.ask("PATCH", "/acme", base_url=base_url, api_key=SECRET)
    assert code(moved) == (400, "address_not_allowed")
    assert api.health.wanted == []
    assert [row["base_url"] for row in api.rows.kept.values()] == [
        "https://api.openai.com/v1"
    ]


@pytest.mark.parametrize(
    ("base_url", "settings", "allowed"),
    [
        ("https://good.example/v1", {}, True),
        ("https://unknown.example/v1", {}, True),  # the gateways may know it
        ("https://metadata.example/v1", {}, False),
        ("https://mapped.example/v1", {}, False),
        ("https://both.example/v1", {}, True),  # the other is what is dialled
        ("http://intranet.example/v1", {}, True),
        ("http://192.168.1.7:8000/v1", {}, True),
        ("http://127.0.0.1:11434/v1", {}, True),
        ("http://127.0.0.1:8000/v1", {}, False),
        ("http://here.example:8001/v1", {}, False),
        ("http://127.0.0.1:8000/v1", {"PROXY_PORT": "9000"}, True),
        ("http://127.0.0.1:9000/v1", {"PROXY_PORT": "9000"}, False),
        ("http://[::1]:8003/v1", {}, False),
        ("http://redis.internal:7000/v1", {}, False),
        ("http://cache.example:7000/v1", {}, False),
        ("http://192.0.2.6:7000/v1", {}, False),
        ("http://192.0.2.6:7001/v1", {}, True),
        ("http://sql.internal:5432/v1", {}, False),
        ("http://rooter:8001/v1", {}, False),
        ("http://intranet.example/v1", CLOSED, False),
        ("http://192.168.1.7/v1", CLOSED, False),
        ("http://[fd12::7]/v1", CLOSED, False),
        ("http://100.64.0.7/v1", CLOSED, False),
        ("http://localhost:9/v1", CLOSED, False),
        ("http://[64:ff9b::10.0.0.7]/v1", CLOSED, False),
        ("https://8.8.8.8/v1", CLOSED, True),
        ("http://[::ffff:8.8.8.8]/v1", CLOSED, True),
        ("http://10.0.0.7:81/v1", {**CLOSED, **UPSTREAM}, True),  # as configured
        ("http://10.0.0.7:82/v1", {**CLOSED, **UPSTREAM}, False),
        ("http://metadata.example/v1", PROXIED, True),  # the proxy looks names up
        ("http://169.254.169.254/v1", PROXIED, False),
        ("http://2852039166/v1", PROXIED, False),
    ],
)
def test_where_a_provider_may_be(
    base_url: str, settings: dict[str, str], allowed: bool
) -> None:
    api = Api(SEALER, **{**STACK, **settings})
    answer = api.ask("POST", **GIVEN, base_url=base_url)
    assert answer.status_code == (201 if allowed else 400), answer.text
    tested = api.ask("POST", "/test", api_key=SECRET, base_url=base_url)
    assert tested.status_code == (200 if allowed else 400)
    assert len(api.health.wanted) == allowed
    if "HTTP_PROXY" in settings:
        assert api.looked_up == []


@pytest.mark.parametrize(
    ("reference", "base_url", "allowed"),
    [
        ("env:OPENAI_API_KEY", None, True),
        ("env:OPENAI_API_KEYS#2", "https://api.openai.com:443/v1", True),
        ("env:OPENAI_API_KEY", "https://api.openai.com/v1/below", True),
        ("env:OPENAI_API_KEY", "http://api.openai.com/v1", False),
        ("env:OPENAI_API_KEY", "https://api.openai.com:444/v1", False),
        ("env:OPENAI_API_KEY", "https://api.openai.com/v2", False),
        ("env:OPENAI_API_KEY", "https://api.openai.com/v1/../v2", False),
        ("env:OPENAI_API_KEY", "https://api.openai.com/v1/%2e%2e/v2", False),
        ("env:OPENAI_API_KEY", "https://api.openai.com.evil.example/v1", False),
        ("env:OPENAI_ANYTHING", "https://evil.example/v1", False),
        ("env:PROVIDER_ACME", "https://acme.example/v1", True),
        ("env:ACME", None, False),
        ("env:PATH", None, False),
        ("env:AWS_SECRET_ACCESS_KEY", "https://acme.example/v1", False),
    ],
)
def test_where_a_reference_may_go(
    api: Api, reference: str, base_url: str | None, allowed: bool
) -> None:
    given: dict[str, Any] = {"credential_ref": reference, "base_url": base_url}
    stored = api.ask("POST", id="acme", **given)
    tested = api.ask("POST", "/test", **given)
    if allowed:
        assert (stored.status_code, tested.status_code) == (201, 200)
        return
    assert code(stored) == code(tested) == (400, "credential_not_allowed")
    assert stored.json["error"]["param"] == "credential_ref"
    assert (api.rows.kept, api.health.wanted) == ({}, [])


def test_the_operator_lists_the_variables_of_providers() -> None:
    api = Api(SEALER, PROXY_CREDENTIAL_VARIABLES="ACME_*, *_TOKEN")
    for reference, status in (
        ("env:ACME_KEY", 201),
        ("env:LAB_TOKEN", 201),
        ("env:PROVIDER_KEY", 400),
        ("env:PROXY_ADMIN_TOKEN", 400),
    ):
        id_ = reference.removeprefix("env:")
        answer = api.ask("POST", id=id_, credential_ref=reference)
        assert answer.status_code == status, reference


def test_an_old_row_that_breaks_the_rules_can_only_be_put_right(api: Api) -> None:
    api.ask("POST", id="acme", credential_ref="env:PROVIDER_ACME")
    api.rows.kept["acme"] |= {"credential_ref": "env:PATH"}
    assert code(api.ask("POST", "/test", id="acme"))[1] == "credential_not_allowed"
    assert code(api.ask("PATCH", "/acme", enabled=True))[1] == "credential_not_allowed"
    assert api.ask("PATCH", "/acme", enabled=False).status_code == 200
    fixed = api.ask("PATCH", "/acme", credential_ref="env:PROVIDER_ACME", enabled=True)
    assert fixed.status_code == 200
