"""Ingest as a whole: what keeps it from starting, and its shutdown.
tests/integration/ingest/test_ingest_process.py uses Redis and Postgres."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.common.settings.services import IngestSettings
from libs.common.store.interface import SchemaTooNew
from libs.common.store.sqlite import schema as sqlite
from libs.common.store.sqlite.store import SqliteStore
from services.ingest.app import run, serve
from tests.support.databases.resp import Command, Scripted, scripted
from tests.support.processes.ports import free_port
from tests.support.processes.waiting import eventually


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PROXY_INGEST_BATCH_SIZE", "0"),
        ("PROXY_SQLITE_URL", "file"),
        ("PROXY_PRICES_FILE", "/nowhere/prices.toml"),
    ],
)
def test_a_setting_that_makes_no_sense_is_one_line(
    variable: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        run({variable: value})
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(variable)


def redis(command: Command) -> Any:
    """A Redis with two empty streams."""
    return {b"XLEN": 0, b"XAUTOCLAIM": [b"0-0", [], []], b"XPENDING": []}.get(
        command[0]
    )


def settings(tmp_path: Path, port: int, url: str, **more: str) -> IngestSettings:
    return IngestSettings.read(
        {
            **more,
            "PROXY_REDIS_URL": url,
            "PROXY_INGEST_PORT": str(port),
            "PROXY_SQLITE_URL": f"sqlite:///{tmp_path}/proxy.sqlite3",
        }
    )


@pytest.mark.asyncio
async def test_it_migrates_gets_ready_and_ends_at_a_signal(tmp_path: Path) -> None:
    port = free_port()
    async with scripted(redis) as server, httpx.AsyncClient() as client:
        running = asyncio.create_task(serve(settings(tmp_path, port, server.url)))

        async def ready() -> bool:
            try:
                answer = await client.get(f"http://127.0.0.1:{port}/readyz")
            except httpx.ConnectError:
                return False
            ends = dict.fromkeys(("redis", "sql", "schema"), "ok")
            return answer.status_code == 200 and answer.json()["details"] == ends

        await eventually(ready)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, 60)
    assert streams(server) == {b"telemetry:events", b"telemetry:events:payloads"}


def streams(server: Scripted) -> set[bytes]:
    """Those that are read."""
    return {c[c.index(b"STREAMS") + 1] for c in server.commands if b"STREAMS" in c}


@pytest.mark.asyncio
async def test_a_stack_with_a_namespace_reads_its_own_streams(tmp_path: Path) -> None:
    port = free_port()
    async with scripted(redis) as server:
        given = settings(tmp_path, port, server.url, PROXY_REDIS_NAMESPACE="b_2")
        running = asyncio.create_task(serve(given))

        async def reads() -> bool:
            return len(streams(server)) == 2

        await eventually(reads)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, 60)
    assert streams(server) == {
        b"{b_2}:telemetry:events",
        b"{b_2}:telemetry:events:payloads",
    }


@pytest.mark.asyncio
async def test_a_database_of_a_newer_version_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(tmp_path / "proxy.sqlite3")
    await store.migrate()
    await store.close()
    monkeypatch.setattr(sqlite, "MIGRATIONS", sqlite.MIGRATIONS[:-1])
    async with scripted(redis) as server:
        with pytest.raises(SchemaTooNew):
            await serve(settings(tmp_path, free_port(), server.url))
    assert all(command[0] != b"XREADGROUP" for command in server.commands)


def newer(*_: object) -> None:
    raise SchemaTooNew("The database has schema 99.")


def test_a_newer_database_is_one_line_and_an_exit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("logs.configure", "collect_seldom"):  # of the whole process
        monkeypatch.setattr(f"services.ingest.app.{name}", lambda *_: None)
    monkeypatch.setattr("services.ingest.app.serve", newer)
    with pytest.raises(SystemExit) as exit_:
        run({})
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "The database has schema 99.\n"
