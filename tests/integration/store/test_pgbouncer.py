"""Postgres with TLS, and behind pgbouncer in transaction mode: every database operation
of the services works, and an untrusted certificate is refused."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import psycopg
import pytest
import pytest_asyncio

from libs.cli.operations import doctor
from libs.common.contracts.payloads import Note, Payload
from libs.common.errors import StoreAway
from libs.common.store.factory import open_store
from libs.common.store.interface import HistoryQuery
from libs.common.store.migrate import known_migrations
from libs.common.store.rows import instant
from libs.common.store.store import Store
from tests.support.databases.certificates import make_authority
from tests.support.databases.pgbouncer import Secured, secured_postgres
from tests.support.databases.postgres import fresh_database
from tests.support.databases.sql import fetch
from tests.support.processes.fleet import Plan, running_fleet
from tests.support.processes.ports import free_port
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator
from tests.support.values.telemetry import (
    T0_MS,
    decision_event,
    stored_request,
    streamed,
)

NEWEST = len(known_migrations("postgres"))
DAY = instant(T0_MS).date()
KEYS = {"sk-a1": "a", "sk-b1": "b"}
AT_ONCE = 6  # more clients than pgbouncer has connections


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    with secured_postgres() as secured:
        yield secured


@pytest.fixture
def database(secured: Secured) -> Iterator[str]:
    """The name of an empty database."""
    with fresh_database(secured.server) as url:
        yield url.rpartition("/")[2]


@pytest.fixture
def url(secured: Secured, database: str) -> str:
    """The URL through pgbouncer, with TLS."""
    return secured.tls(f"{secured.bouncer}/{database}")


@pytest_asyncio.fixture
async def stores(url: str) -> AsyncIterator[list[Store]]:
    """Stores of as many processes."""
    opened = [open_store(url) for _ in range(AT_ONCE)]
    yield opened
    for store in opened:
        await store.close()


@pytest.mark.asyncio
async def test_everybody_may_migrate_at_once(stores: list[Store], url: str) -> None:
    reached = await asyncio.gather(*(store.migrate() for store in stores))
    assert reached == [NEWEST] * AT_ONCE
    applied = fetch(url, "SELECT version FROM schema_migrations ORDER BY version")
    assert applied == [(version,) for version in range(1, NEWEST + 1)]
    # Locks end with their transaction.
    assert fetch(url, "SELECT 1 FROM pg_locks WHERE locktype = 'advisory'") == []


@pytest.mark.asyncio
async def test_writing_reading_and_retention_at_once(
    stores: list[Store], url: str
) -> None:
    first = stores[0]
    await first.migrate()
    await asyncio.gather(*(store.make_partitions(DAY) for store in stores))

    async def work(number: int, store: Store) -> None:
        # Often enough that psycopg would prepare a repeated statement.
        for turn in range(8):
            id_ = f"r{number}-{turn}"
            batch = [
                streamed(decision_event(id_, session_id="s"), f"decision-{id_}"),
                stored_request(
                    id_,
                    session_id="s",
                    resource_id="openai-1",
                    minted=(f"resp_{id_}",),
                ),
            ]
            assert await store.write(batch) == 2
            assert await store.write(batch) == 0  # merged
            await store.write_payloads([_payload(id_)])
            row = await store.request(id_)
            assert row is not None
            assert await store.payloads(row)
            assert await store.owners([f"resp_{id_}"])
            assert (await store.history(HistoryQuery("requests", 10))).rows

    await asyncio.gather(*(work(n, store) for n, store in enumerate(stores)))
    assert (await first.counts()).requests == AT_ONCE * 8
    assert await first.drop_before(DAY + timedelta(days=1)) > 0
    assert fetch(url, "SELECT count(*) FROM requests") == [(0,)]
    assert fetch(url, "SELECT 1 FROM pg_prepared_statements") == []


@pytest.mark.asyncio
async def test_all_services_work_behind_it(
    url: str, valkey: str, tmp_path: Path
) -> None:
    settings = {"PROXY_DATABASE_URL": url, "PROXY_RETENTION_DAYS": "30"}
    plan = Plan(KEYS, 1, ("router", "ingest"), settings)
    async with (
        Simulator(KEYS) as simulator,
        running_fleet(plan, simulator, valkey, tmp_path) as fleet,
        httpx.AsyncClient(timeout=10) as http,
    ):
        for _ in range(20):
            body = {"model": "gpt-5.5", "input": "hi"}
            answer = await http.post(f"{fleet.gateways[0].url}/responses", json=body)
            assert answer.status_code == 200

        async def stored() -> bool:
            ledger = (await http.get(f"{fleet.admin}/ledger")).json()
            return bool(ledger["stored"] == 20 and ledger["balanced"])

        await eventually(stored)
        made = await http.post(f"{fleet.admin}/keys", json={"name": "k"})
        assert made.status_code == 201
        pages = [
            await http.get(f"{fleet.admin}/{table}", params={"limit": 500})
            for table in ("requests", "decisions", "sessions", "keys")
        ]
        assert [page.status_code for page in pages] == [200] * 4
        one = await http.get(
            f"{fleet.admin}/requests/{answer.headers['x-proxy-request-id']}"
        )
        assert one.json()["decisions"]


@pytest.mark.asyncio
async def test_sslmode_require_is_enough_for_a_server_of_its_own_certificate(
    secured: Secured, database: str
) -> None:
    url = f"{secured.server}/{database}?sslmode=require"
    store = open_store(url)
    assert await store.migrate() == NEWEST
    await store.write([stored_request()])
    await store.close()
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        ).fetchone()
    assert found == (True,)


@pytest.mark.asyncio
async def test_a_ca_that_signed_nothing_is_refused_in_one_line(
    secured: Secured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = make_authority(tmp_path, "a stranger").file
    url = secured.tls(f"{secured.server}/postgres", ca=stranger)
    store = open_store(url)
    with pytest.raises(StoreAway, match="certificate verify failed"):
        await store.ping()
    await store.close()
    line = _diagnosis(url.replace("postgres@", "postgres:hush@"), tmp_path, capsys)
    assert re.match("FAIL.*certificate verify failed.*sslrootcert", line)
    assert "hush" not in line


def test_a_server_without_tls_is_refused_in_one_line(
    postgres_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = _diagnosis(f"{postgres_url}?sslmode=require", tmp_path, capsys)
    assert re.match("FAIL.*does not support SSL.*sslmode", line)


def _diagnosis(url: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    doctor.examine(
        {
            "PROXY_DATABASE_URL": url,
            "PROXY_DATA_DIR": str(folder),
            "PROXY_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        }
    )
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if " database " in line]
    return line


def _payload(request_id: str) -> Payload:
    asked, answered = Note(5, "text/plain"), Note(9, dropped="no room")
    return Payload(request_id, T0_MS, asked, answered, request_body=b"packed")
