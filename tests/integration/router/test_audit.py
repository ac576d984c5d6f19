"""The audit log and admin tokens with names, through real processes and on both
databases: every operation of the admin API that changes something leaves one row."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from cryptography.fernet import Fernet

from libs.common.browser_guard import CHECKED, CLIENT_ADDRESS
from libs.common.store.factory import open_store
from tests.support.databases.sql import setting, table_rows
from tests.support.databases.stores import database
from tests.support.databases.valkey import empty
from tests.support.processes.fleet import Fleet, Plan, running_fleet
from tests.support.upstreams.simulator import Simulator
from tests.support.values.admin_steps import ASKING, STEPS, Step

pytestmark = pytest.mark.asyncio(loop_scope="module")
TOKEN = "the-first-admin-token"
KEYS = {"sk-sim-a": "acct-a", "sk-first-secret": "acct-b", "sk-second-secret": "acct-b"}
FERNET = Fernet.generate_key().decode()
FORWARDED, CLIENT = "x-forwarded-for", "203.0.113.9"


class World:
    """The running product, and what its admin API said."""

    def __init__(self, fleet: Fleet, url: str) -> None:
        self.fleet = fleet
        self.url = url
        self.http = httpx.AsyncClient(timeout=20)
        self.ids = {
            "team_id": "red", "provider_id": "acme", "alias": "fast", "name": "ann",
            "model": "gpt-9",
        }  # fmt: skip
        self.secrets = {TOKEN, FERNET, *KEYS}

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str = TOKEN,
        origin: str = "",
        **headers: str,
    ) -> httpx.Response:
        """Through the gateway, unless `origin` is another."""
        given = {"authorization": f"Bearer {token}", FORWARDED: CLIENT, **headers}
        if method in {"post", "patch", "put"}:
            body = {} if body is None else body
        answer = await self.http.request(
            method,
            f"{origin or self.fleet.gateways[0].origin}{path.format(**self.ids)}",
            json=body,
            headers=given,
        )
        if answer.status_code == 201:
            made = answer.json()
            self.secrets |= {made[k] for k in ("secret", "token") if k in made}
            if "secret" in made:
                self.ids["key_id"] = made["id"]
        return answer

    async def minted(self, name: str, role: str) -> str:
        body = {"name": name, "role": role}
        answer = await self.ask("post", "/admin/tokens", body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    async def log(self, **query: Any) -> list[dict[str, Any]]:
        """The audit log as the API shows it, newest first."""
        origin = self.fleet.gateways[0].origin
        answer = await self.http.get(
            f"{origin}/admin/audit",
            params={"limit": 500, **query},
            headers={"authorization": f"Bearer {TOKEN}"},
        )
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"])


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["sqlite", "postgres"]
)
async def world(
    request: pytest.FixtureRequest,
    valkey_server: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("fleet")
    with database(request.param, request, folder) as url:
        async with open_store(url) as store:
            await store.migrate()
        empty(valkey_server)
        plan = Plan(
            {"sk-sim-a": "acct-a"},
            gateways=1,
            services=("router", "health"),
            settings={
                **setting(url),
                "PROXY_ADMIN_TOKEN": TOKEN,
                "PROXY_SECRET_ENCRYPTION_KEY": FERNET,
                "PROXY_TRUSTED_PROXIES": "127.0.0.0/8",
            },
        )
        async with (
            Simulator(KEYS) as simulator,
            running_fleet(plan, simulator, valkey_server, folder) as fleet,
        ):
            made = World(fleet, url)
            yield made
            await made.http.aclose()


async def test_every_change_leaves_one_row(world: World) -> None:
    described = (await world.ask("get", "/openapi.json")).json()["paths"]
    declared = {
        (method, path)
        for path, methods in described.items()
        for method in methods
        if path.startswith("/admin") and method not in {"get", "head"}
    }
    assert declared == {(step.method, step.path) for step in STEPS} | ASKING
    viewer = await world.minted("watcher", "viewer")
    for step in STEPS:
        before = len(await world.log())
        await _refused(world, step, viewer)
        assert len(await world.log()) == before, step
        answer = await world.ask(step.method, step.path, step.body)
        assert answer.status_code in {200, 201}, (step, answer.text)
        rows = await world.log()
        assert len(rows) == before + 1, step
        row = rows[0]
        assert (row["actor"], row["address"]) == ("default", CLIENT)
        assert row["peer"] == "127.0.0.1"
        assert (row["object_type"], row["action"]) == (step.kind, step.action)
        assert row["object_id"] in world.ids.values()
        assert set(row["changes"]) == step.fields
        again = await world.ask(step.method, step.path, step.body)
        assert again.is_success is (step.again is not None)
        assert len(await world.log()) == before + 1 + (step.again or 0), step
    await _ask_without_changes(world)
    _no_secret_is_stored(world)


async def _refused(world: World, step: Step, viewer: str) -> None:
    """What is refused, for whatever reason."""
    answer = await world.ask(step.method, step.path, step.body, viewer)
    assert answer.status_code == 403
    error = answer.json()["error"]
    assert error["code"] == "admin_token_may_only_read"
    assert "'watcher'" in error["message"]
    answer = await world.ask(step.method, step.path, step.body, "nobody's")
    assert answer.status_code == 401
    if step.refused is not None:
        answer = await world.ask(step.method, step.path, step.refused)
        assert answer.status_code in {400, 404}, answer.text
    elif step.action == "delete" and step.kind != "model":
        unknown = step.path.partition("{")[0] + "unknown"
        assert (await world.ask(step.method, unknown)).status_code == 404


async def _ask_without_changes(world: World) -> None:
    before = len(await world.log())
    for method, path in sorted(ASKING):
        body: dict[str, Any] = {}
        if path.endswith("providers/test"):
            body = {"api_key": "sk-second-secret"}
        answer = await world.ask(method, path, body)
        assert answer.status_code in {200, 400}, answer.text
    assert len(await world.log()) == before


def _no_secret_is_stored(world: World) -> None:
    rows = table_rows(world.url, "audit_log")
    text = json.dumps(rows, default=str)
    assert "***" in text
    assert len(world.secrets) >= 9
    assert [secret for secret in world.secrets if secret in text] == []
    for table, hashes in (("proxy_keys", 64), ("admin_tokens", 64)):
        stored = {
            value
            for row in table_rows(world.url, table)
            for value in row
            if isinstance(value, str) and len(value) == hashes
        }
        assert stored
        assert not [each for each in stored if each in text]
    assert "gAAAA" not in text  # how sealed keys begin


async def test_a_viewer_reads_and_explains(world: World) -> None:
    viewer = await world.minted("reader", "viewer")
    for path in ("state", "audit", "keys", "tokens", "providers"):
        answer = await world.ask("get", f"/admin/{path}", None, viewer)
        assert answer.status_code == 200
    explained = await world.ask("post", "/admin/route/explain", {}, viewer)
    assert explained.status_code == 200
    for method, path in ASKING - {("post", "/admin/route/explain")}:
        answer = await world.ask(method, path, {}, viewer)
        assert answer.status_code == 403
    head = await world.ask("head", "/admin/state", None, viewer)
    assert head.status_code in {200, 405}


async def test_tokens_are_minted_used_and_revoked(world: World) -> None:
    token = await world.minted("bob", "admin")
    made = await world.ask("post", "/admin/teams", {"id": "bobs"}, token)
    assert made.status_code == 201  # at once
    (row,) = await world.log(actor="bob")
    assert (row["object_type"], row["object_id"]) == ("team", "bobs")
    listed = (await world.ask("get", "/admin/tokens")).json()["data"]
    assert {"bob"} <= {each["name"] for each in listed}
    assert all(set(each) == {"name", "role", "created_at"} for each in listed)
    world.ids["name"] = "bob"
    taken = await world.ask("post", "/admin/tokens", {"name": "bob"})
    assert (taken.status_code, taken.json()["error"]["code"]) == (
        409, "admin_token_exists",
    )  # fmt: skip
    assert (await world.ask("delete", "/admin/tokens/{name}", None, token)).is_success
    assert (await world.ask("get", "/admin/teams", None, token)).status_code == 401
    gone = await world.ask("delete", "/admin/tokens/{name}")
    assert (gone.status_code, gone.json()["error"]["code"]) == (
        404, "admin_token_not_found",
    )  # fmt: skip
    rows = await world.log(object_type="admin_token", object_id="bob")
    assert [(row["actor"], row["action"]) for row in rows] == [
        ("bob", "revoke"),
        ("default", "create"),
    ]


async def test_whose_address_counts(world: World) -> None:
    """A client cannot forge its address at the gateway. At the router it can, and
    `peer` is still the truth."""
    forged = {CHECKED: "x", CLIENT_ADDRESS: "192.0.2.66"}
    await world.ask("post", "/admin/teams", {"id": "one"}, **forged)
    router = world.fleet.router.origin
    await world.ask("post", "/admin/teams", {"id": "two"}, origin=router)
    await world.ask("post", "/admin/teams", {"id": "three"}, origin=router, **forged)
    seen = {
        id_: [(row["address"], row["peer"]) for row in await world.log(object_id=id_)]
        for id_ in ("one", "two", "three")
    }
    assert seen == {
        "one": [(CLIENT, "127.0.0.1")],
        "two": [("127.0.0.1", "127.0.0.1")],
        "three": [("192.0.2.66", "127.0.0.1")],
    }


async def test_if_match(world: World) -> None:
    keys = "/admin/keys"
    made = (await world.ask("post", keys, {"name": "shared"})).json()
    one = f"{keys}/{made['id']}"
    seen = {"if-match": f'"{made["version"]}"'}
    first = await world.ask("patch", one, {"requests_per_minute": 5}, **seen)
    assert first.status_code == 200
    late = await world.ask("patch", one, {"requests_per_minute": 9}, **seen)
    assert (late.status_code, late.json()["error"]["code"]) == (
        409, "changed_meanwhile",
    )  # fmt: skip
    assert (await world.ask("delete", one, **seen)).status_code == 409
    shown = (await world.ask("get", one)).json()
    assert (shown["requests_per_minute"], shown["version"]) == (
        5, first.json()["version"],
    )  # fmt: skip
    for version in (shown["version"], "*"):
        again = await world.ask("patch", one, {}, **{"if-match": version})
        assert again.status_code == 200
    rows = await world.log(object_id=made["id"])
    assert [row["action"] for row in rows] == ["change", "create"]
