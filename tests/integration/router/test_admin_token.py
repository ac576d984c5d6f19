"""The admin token that routers create when `PROXY_ADMIN_TOKEN` is unset: real routers,
both databases, and the command that replaces it."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from libs.cli.commands import PYTHON, service_command
from libs.common.admin_token import ensure_file, token_hash
from libs.common.store.admin.audit_log import AuditLog, AuditQuery
from libs.common.store.admin.tokens import AdminTokenRow, NamedTokenRows
from libs.common.store.factory import open_store
from libs.common.store.store import Store
from tests.support.databases.sql import fetch, setting
from tests.support.preloaded import programs
from tests.support.processes.ports import free_port
from tests.support.processes.processes import ROOT, Process, bare_environment, wait_for
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio
LINK = re.compile(r"http://127\.0\.0\.1:8000/#token=([\w-]{43})")


class Router:
    """A router process and its log."""

    def __init__(self, process: Process, http: httpx.AsyncClient) -> None:
        self.process = process
        self.http = http

    async def tokens(self) -> list[str]:
        """Tokens in the login links of its log."""
        return LINK.findall(await asyncio.to_thread(self.process.log.read_text))

    async def status(self, token: str = "") -> int:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return (await self.http.get("/admin/models", headers=headers)).status_code


def settings(valkey: str, url: str, folder: Path, **more: str) -> dict[str, str]:
    return {
        **setting(url),
        "PROXY_ALLOW_OPEN_ADMIN": "",
        "PROXY_REDIS_URL": valkey,
        "PROXY_DATA_DIR": str(folder),
        **more,
    }


@asynccontextmanager
async def router(
    env: dict[str, str], folder: Path, name: str = "router"
) -> AsyncIterator[Router]:
    port = free_port()
    own = {**env, "PROXY_ROUTER_PORT": str(port)}
    process = Process(service_command("router", own), own, folder / f"{name}.log")
    origin = f"http://127.0.0.1:{port}"
    try:
        await asyncio.to_thread(wait_for, process, f"{origin}/healthz")
        async with httpx.AsyncClient(base_url=origin, timeout=10) as http:
            yield Router(process, http)
    finally:
        if process.alive:
            await asyncio.to_thread(process.end)


AS_USERS_DO = (sys.executable, "-c", programs.RUN, "admin-token")
WHAT_IT_EXECUTES = (*PYTHON, "libs.cli.operations.admin_token")


def command(
    env: dict[str, str], *options: str, words: Sequence[str] = WHAT_IT_EXECUTES
) -> subprocess.CompletedProcess[str]:
    environ = {**bare_environment(), **env}
    return programs.completed([*words, *options], environ, ROOT)


async def replaced(env: dict[str, str]) -> str:
    done = await asyncio.to_thread(command, env, "--new", words=AS_USERS_DO)
    assert (done.returncode, done.stderr) == (0, "")
    (token,) = LINK.findall(done.stdout)
    return str(token)


async def test_of_several_routers_one_makes_it(
    valkey: str, url: str, store: Store, tmp_path: Path
) -> None:
    env = settings(valkey, url, tmp_path)
    async with AsyncExitStack() as stack:
        routers = [
            await stack.enter_async_context(router(env, tmp_path, f"router-{number}"))
            for number in range(3)
        ]

        async def told() -> list[str]:
            return [token for each in routers for token in await each.tokens()]

        (token,) = await eventually(told)
        for each in routers:
            assert await each.status() == 401
            assert await each.status("x" * 43) == 401

            async def opened(each: Router = each) -> bool:
                return await each.status(token) == 200

            await eventually(opened)
        kept = fetch(url, "SELECT id, token_hash FROM admin_token")
        assert kept == [(1, token_hash(token.encode()))]
        new = await replaced(env)
        for each in routers:

            async def taken(each: Router = each) -> bool:
                return (await each.status(new), await each.status(token)) == (200, 401)

            await eventually(taken)
        assert await told() == [token]
    async with router(env, tmp_path, "later") as later:

        async def known() -> bool:
            return await later.status(new) == 200

        await eventually(known)
        assert await later.tokens() == []
    logs = [f"router-{number}.log" for number in range(3)]
    text = "".join([(tmp_path / log).read_text() for log in logs])
    assert text.count(token) == 1
    assert new not in text


async def test_a_router_before_its_schema_lets_nobody_in(
    valkey: str, url: str, tmp_path: Path
) -> None:
    async with router(settings(valkey, url, tmp_path), tmp_path) as early:
        answer = await early.http.get("/admin/state")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "admin_token_unknown"
        assert (await early.http.get("/")).status_code == 200
        store = open_store(url)
        await store.migrate()
        await store.close()
        (token,) = await eventually(early.tokens)

        async def opened() -> bool:
            return await early.status(token) == 200

        await eventually(opened)


async def test_the_file_of_up_is_replaced_at_once(valkey: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.sqlite3"
    async with open_store(url) as store:
        await store.migrate()
    env = settings(valkey, url, tmp_path)
    token = ensure_file(tmp_path)
    async with router(env, tmp_path) as running:
        assert await running.status() == 401
        assert await running.status(token) != 401
        shown = await asyncio.to_thread(command, env)
        assert LINK.findall(shown.stdout) == [token]
        new = await replaced(env)
        assert await running.status(token) == 401
        assert await running.status(new) != 401
        assert await running.tokens() == []


async def test_an_open_admin_api_is_asked_for_and_warned_of(
    valkey: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/x.sqlite3"
    env = settings(valkey, url, tmp_path, PROXY_ALLOW_OPEN_ADMIN="true")
    async with router(env, tmp_path) as running:
        state = (await running.http.get("/admin/state")).json()
        assert state["admin"] == "open"
        lines = (await asyncio.to_thread(running.process.log.read_text)).splitlines()
        (warning,) = [w for w in map(json.loads, lines) if w["action"] == "admin_open"]
        assert warning["level"] == "warning"
        assert "PROXY_ALLOW_OPEN_ADMIN" in warning["message"]


async def test_tokens_with_names_by_command(
    valkey: str, url: str, store: Store, tmp_path: Path
) -> None:
    env = settings(valkey, url, tmp_path, PROXY_ADMIN_TOKEN="the-first-one")

    async def done(*options: str) -> tuple[int, str]:
        result = await asyncio.to_thread(command, env, *options)
        assert bool(result.stderr) is bool(result.returncode)
        return result.returncode, result.stderr or result.stdout

    _, link = await done("--name", "ann")
    (token,) = LINK.findall(link)
    rows = NamedTokenRows(store.fetch)
    assert await rows.holders() == {token_hash(token.encode()): ("ann", "viewer")}
    async with router(env, tmp_path) as running:
        assert await running.status(token) == 200
        headers = {"authorization": f"Bearer {token}"}
        refused = await running.http.post("/admin/keys", json={}, headers=headers)
        assert refused.status_code == 403
        assert (await done("--name", "ann"))[0] == 1  # taken
        assert await done("--name", "ann", "--revoke") == (0, "revoked ann\n")

        async def revoked() -> bool:
            return await running.status(token) == 401

        await eventually(revoked)
    for options, said in (
        (("--name", "ann", "--revoke"), "no token with the name 'ann'"),
        (("--name", "default"), "choose another"),
        (("--revoke",), "use --revoke with --name"),
        (("--name", "ann", "--new"), "--new without it"),
    ):
        code, text = await done(*options)
        assert (code, said in text) == (1, True), text
    await replaced(settings(valkey, url, tmp_path))
    shown = [
        (row["actor"], row["address"], row["action"], row["object_id"], row["changes"])
        for row in (await AuditLog(store.fetch).page(AuditQuery())).rows
    ]
    by, fields = "(command line)", {"name": "ann", "role": "viewer"}
    assert shown == [
        (
            by, None, "change", "default",
            {"token_hash": {"before": None, "after": "***"}},
        ),
        (
            by, None, "revoke", "ann",
            {name: {"before": was, "after": None} for name, was in fields.items()},
        ),
        (
            by, None, "create", "ann",
            {name: {"before": None, "after": now} for name, now in fields.items()},
        ),
    ]  # fmt: skip


async def test_the_row_is_one(store: Store) -> None:
    rows = AdminTokenRow(store.fetch)
    now = datetime.now(UTC)
    assert await rows.get() is None
    assert await rows.add("first", now)
    assert not await rows.add("second", now)
    assert await rows.get() == "first"
    await rows.put("third", now)
    assert await rows.get() == "third"


@pytest.mark.parametrize(
    ("env", "options", "code", "said"),
    [
        (
            {"PROXY_ADMIN_TOKEN": "hush-hush"},
            ("--new",),
            2,
            "PROXY_ADMIN_TOKEN: is set",
        ),
        ({"PROXY_ADMIN_TOKEN": "hush-hush"}, (), 2, "PROXY_ADMIN_TOKEN: is set"),
        ({}, ("--new",), 2, "which has no admin-token"),
        ({}, (), 2, "which has no admin-token"),
    ],
)
async def test_what_cannot_be_replaced(
    tmp_path: Path, env: dict[str, str], options: tuple[str, ...], code: int, said: str
) -> None:
    folder = tmp_path / "data"
    own = {
        "PROXY_DATA_DIR": str(folder),
        "PROXY_SQLITE_URL": f"sqlite:///{folder}/proxy.sqlite3",
        **env,
    }
    done = await asyncio.to_thread(command, own, *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert "hush" not in done.stderr
    assert not folder.exists()


async def test_a_hash_cannot_be_shown(tmp_path: Path, url: str, store: Store) -> None:
    done = await asyncio.to_thread(command, settings("", url, tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "admin-token --new" in done.stderr
