"""The admin token that routers create when `PROXY_ADMIN_TOKEN` is unset: real routers,
both databases, and the command that replaces it."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from libs.cli.commands import service_command
from libs.common.admin_token import ensure_file, token_hash
from libs.common.store.admin_token import AdminTokenRow
from libs.common.store.factory import open_store
from libs.common.store.interface import Store
from tests.support.databases.sql import fetch, setting
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


def command(env: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    code = "from libs.cli.main import run; run()"
    return subprocess.run(
        [sys.executable, "-c", code, "admin-token", *options],
        check=False, capture_output=True, text=True, timeout=60, cwd=ROOT,
        env={**bare_environment(), **env},
    )  # fmt: skip


async def replaced(env: dict[str, str]) -> str:
    done = await asyncio.to_thread(command, env, "--new")
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

        (token,) = await eventually(told, within_s=20)
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
        (token,) = await eventually(early.tokens, within_s=10)

        async def opened() -> bool:
            return await early.status(token) == 200

        await eventually(opened)


async def test_the_file_of_up_is_replaced_at_once(valkey: str, tmp_path: Path) -> None:
    env = settings(valkey, f"sqlite:///{tmp_path}/x.sqlite3", tmp_path)
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
