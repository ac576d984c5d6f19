"""Backup and restore with the commands of docs/upgrade.md, while gateways serve."""

import asyncio
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from libs.common.redis.keys import DEFAULT
from tests.support.databases.postgres import binaries
from tests.support.databases.sql import execute, fetch, is_postgres, setting
from tests.support.databases.valkey import running_valkey
from tests.support.processes.debian import program
from tests.support.processes.fleet import PORTS, Member
from tests.support.processes.ports import free_port
from tests.support.processes.processes import ROOT, wait_for
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(240)]

DOCUMENTED = (ROOT / "docs/upgrade.md").read_text()
KEYS = {"sk-a": "a", "sk-b": "b"}
WORDS = {True: "pg_", False: "proxy-backup.sqlite3"}  # of the commands for Postgres
ASK = {"model": "gpt-5.5", "input": "Say hello"}


def _unix(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def documented(section: str, language: str, word: str) -> str:
    """The block of a section of docs/upgrade.md in which a word occurs."""
    text = DOCUMENTED.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    blocks = re.findall(
        rf"^ *```{language}\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE
    )
    (block,) = [block for block in blocks if word in block]
    return str(block)


@dataclass
class Scene:
    """A gateway, a router and ingest on one database."""

    common: dict[str, str]
    database: str
    folder: Path
    stack: AsyncExitStack
    members: dict[str, Member] = field(default_factory=dict)
    answered_at: float = 0.0  # Unix seconds of the last answer

    def restore(self) -> None:
        """Into a new database if it is Postgres, which ingest and router then use."""
        postgres = is_postgres(self.database)
        self.run(documented("Restore", "sh", WORDS[postgres]))
        if postgres:
            drop = "DROP DATABASE proxy_restored WITH (FORCE)"
            self.stack.callback(_execute_alone, self.database, drop)
            self.database = f"{self.database.rpartition('/')[0]}/proxy_restored"
            self.common |= setting(self.database)
            del self.members["ingest"], self.members["router"]

    async def start(self, name: str) -> None:
        if name in self.members:
            self.members[name].start_anew()
        else:
            log = self.folder / f"{name}.log"
            self.members[name] = Member(name, self.common, log)
            self.stack.push_async_callback(self.members[name].end)
        made = self.members[name]
        await asyncio.to_thread(wait_for, made.process, f"{made.origin}/readyz")

    async def stop(self, *names: str) -> None:
        for name in names:
            await self.members[name].end()

    async def call(self, name: str, path: str, **options: Any) -> httpx.Response:
        url = f"{self.members[name].origin}{path}"
        async with httpx.AsyncClient(timeout=30) as client:
            method = "POST" if "json" in options else "GET"
            return await client.request(method, url, **options)

    async def mint(self, name: str) -> str:
        """A proxy key that the gateway knows."""
        made = await self.call("router", "/admin/keys", json={"name": name})
        secret: str = made.json()["secret"]

        async def known() -> bool:
            return (await self.ask(secret)).status_code == 200

        await eventually(known)
        return secret

    async def ask(self, key: str, **more: Any) -> httpx.Response:
        answer = await self.call(
            "gateway", "/v1/responses", json={**ASK, **more},
            headers={"authorization": f"Bearer {key}"},
        )  # fmt: skip
        self.answered_at = time.time()
        return answer

    async def ledger(self) -> dict[str, Any]:
        ledger: dict[str, Any] = (await self.call("router", "/admin/ledger")).json()
        return ledger

    async def stored(self, count: int) -> None:
        """Wait until that many requests are in SQL, and known to be."""

        async def all_there() -> bool:
            rows = fetch(self.database, "SELECT count(*) FROM requests")
            gateways = (await self.ledger())["gateways"]
            held = sum(gateway["held"] for gateway in gateways)
            # A report of before the last request would not count it.
            seen = [g["seen_at"] for g in gateways if g["state"] == "running"]
            fresh = all(at > self.answered_at for at in map(_unix, seen))
            return rows == [(count,)] and held == 0 and fresh

        await eventually(all_there)

    def run(self, block: str) -> None:
        """Execute a documented block as an operator would."""
        path = f"{binaries()}:{os.environ['PATH']}"
        subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            check=True, cwd=self.folder, timeout=60,
            env={**self.common, "PATH": path},
        )  # fmt: skip


@pytest_asyncio.fixture
async def scene(url: str, tmp_path: Path) -> AsyncIterator[Scene]:
    database = url
    if not is_postgres(url):
        program("sqlite3", "sqlite3")
        database = f"sqlite:///{tmp_path}/proxy.sqlite3"
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(KEYS))
        common = {
            "PROXY_REDIS_URL": stack.enter_context(running_valkey(tmp_path)),
            "PROXY_UPSTREAM_BASE_URL": simulator.base_url,
            "PROXY_DATA_DIR": str(tmp_path),
            "PROXY_HEARTBEAT_SECONDS": "0.1",
            "PROXY_REQUIRE_KEYS": "true",
            "OPENAI_API_KEYS": ",".join(KEYS),
            "OPENAI_RESOURCE_ACCOUNT_IDS": ",".join(KEYS.values()),
            **{name: str(free_port()) for name in PORTS.values()},
            **setting(database),
        }
        made = Scene(common, database, tmp_path, stack)
        for name in ("ingest", "router", "gateway"):
            await made.start(name)
        yield made


async def test_a_backup_is_restored_while_gateways_serve(scene: Scene) -> None:
    key = await scene.mint("kept")
    first = (await scene.ask(key)).json()
    await scene.stored(2)
    scene.run(documented("Back up", "sh", WORDS[is_postgres(scene.database)]))

    lost = await scene.mint("made after the backup")
    await scene.ask(key)
    await scene.stored(4)
    await scene.stop("ingest", "router")
    assert (await scene.ask(key)).status_code == 200  # meanwhile
    scene.restore()
    await scene.start("ingest")
    await scene.start("router")

    await scene.stored(3)
    chained = await scene.ask(key, previous_response_id=first["id"])
    assert chained.status_code == 200
    await scene.stored(4)

    served = 0  # while the gateway still has the keys of before

    async def unknown() -> bool:
        nonlocal served
        status = (await scene.ask(lost)).status_code
        served += status == 200
        return status == 401

    await eventually(unknown)
    ledger = await scene.ledger()
    (problem,) = ledger["problems"]
    assert problem.endswith(": 2 stored requests are gone")
    await scene.stop("gateway")
    await eventually(lambda: closed(scene))
    execute(scene.database, documented("Restore", "sql", "UPDATE gateways"))

    seen: dict[str, Any] = {}

    async def balanced() -> bool:
        seen.update(await scene.ledger())
        return seen["balanced"] is True and seen["accepted"] == 4 + served

    try:
        await eventually(balanced)
    except AssertionError:
        raise AssertionError(f"served {served}, {seen}") from None
    await scene.start("gateway")
    assert (await scene.ask(key)).status_code == 200
    await scene.stored(5)
    assert (await scene.ledger())["balanced"] is True


def _execute_alone(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


async def closed(scene: Scene) -> bool:
    """Whether SQL knows that the gateway has ended, and has its last reports."""
    async with Redis.from_url(scene.common["PROXY_REDIS_URL"]) as redis:
        reports = await redis.hlen(DEFAULT.reports())
    if reports or (await scene.ledger())["queue_depth"]:
        return False
    return fetch(scene.database, "SELECT state FROM gateways") == [("closed",)]
