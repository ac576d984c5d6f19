"""Proxy keys in SQL, here in a file. The same on Postgres is in
tests/integration/security/test_proxy_keys.py."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from libs.common.proxy_keys import Principal
from libs.common.store.interface import Cursor
from libs.common.store.proxy_keys import NewKey, ProxyKeyRows, uses
from libs.common.store.rows import instant, iso, milliseconds
from libs.common.store.sqlite.store import SqliteStore
from tests.support.values.telemetry import T0_MS, request_event, stored_request

AT = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
EXPIRES = AT + timedelta(days=30)
KEY = NewKey(
    id="key_1",
    name="nightly",
    prefix="rpx_abcdef",
    secret_hash="hash-1",
    pool_id="cheap",
    pools=("cheap", "fast"),
    expires_at=EXPIRES,
    requests_per_minute=60,
    tokens_per_minute=None,
    created_at=AT,
    team_id="red",
)


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(tmp_path / "proxy.sqlite3")
    await made.migrate()
    yield made
    await made.close()


@pytest.fixture
def rows(store: SqliteStore) -> ProxyKeyRows:
    return ProxyKeyRows(store.fetch)


@pytest.mark.asyncio
async def test_a_key_is_kept_and_its_hash_not_shown(rows: ProxyKeyRows) -> None:
    added = await rows.add(KEY)
    assert added == {
        "id": "key_1",
        "name": "nightly",
        "prefix": "rpx_abcdef",
        "team_id": "red",
        "pool_id": "cheap",
        "pools": ["cheap", "fast"],
        "expires_at": iso(EXPIRES),
        "requests_per_minute": 60,
        "tokens_per_minute": None,
        "enabled": True,
        "created_at": iso(AT),
        "last_used_at": None,
        "revoked_at": None,
    }
    assert await rows.get("key_1") == added


@pytest.mark.asyncio
async def test_what_gateways_need_to_know(rows: ProxyKeyRows) -> None:
    await rows.add(KEY)
    principal = Principal(
        "key_1", "cheap", ("cheap", "fast"), milliseconds(EXPIRES), 60, None,
        team_id="red",
    )  # fmt: skip
    assert await rows.records() == {"hash-1": principal}
    assert await rows.record("key_1") == ("hash-1", principal)
    assert await rows.record("key_2") is None


@pytest.mark.asyncio
async def test_a_key_without_limits(rows: ProxyKeyRows) -> None:
    await rows.add(replace(KEY, pool_id=None, pools=(), expires_at=None, team_id=None))
    found = (await rows.records())["hash-1"]
    assert (found.pool_id, found.pools, found.expires_at_ms) == (None, (), None)
    assert (found.team_id, found.tenant) == (None, "key:key_1")


@pytest.mark.asyncio
async def test_a_revoked_key_stays_so_and_is_nobodys(rows: ProxyKeyRows) -> None:
    await rows.add(KEY)
    first = await rows.revoke("key_1", AT)
    again = await rows.revoke("key_1", AT + timedelta(days=1))
    assert first == again
    assert first is not None
    assert first["revoked_at"] == iso(AT)
    assert await rows.records() == {}
    assert await rows.record("key_1") == ("hash-1", None)
    assert await rows.change("key_1", {"enabled": True}) is None
    assert len((await rows.page(10, None)).rows) == 1


@pytest.mark.asyncio
async def test_what_is_named_changes_and_nothing_else(rows: ProxyKeyRows) -> None:
    before = await rows.add(KEY)
    changed = await rows.change(
        "key_1", {"enabled": False, "pools": ("fast",), "expires_at": AT}
    )
    expected = {"enabled": False, "pools": ["fast"], "expires_at": iso(AT)}
    assert changed == {**before, **expected}


@pytest.mark.asyncio
@pytest.mark.parametrize("id_", ["key_2", "key\0", "\ud83d"])
async def test_a_key_that_is_not_there(rows: ProxyKeyRows, id_: str) -> None:
    assert await rows.get(id_) is None
    assert await rows.change(id_, {"enabled": False}) is None
    assert await rows.revoke(id_, AT) is None


@pytest.mark.asyncio
async def test_pages_go_from_the_newest_to_the_oldest(rows: ProxyKeyRows) -> None:
    for n in range(5):
        made = AT + timedelta(minutes=n // 2)  # some in one moment
        key = replace(KEY, id=f"key_{n}", secret_hash=f"h{n}", created_at=made)
        await rows.add(key)
    seen: list[str] = []
    cursor: Cursor | None = None
    while True:
        page = await rows.page(2, cursor)
        seen += [row["id"] for row in page.rows]
        if page.next_cursor is None:
            break
        cursor = Cursor.decode(page.next_cursor)
    assert seen == ["key_4", "key_3", "key_2", "key_1", "key_0"]


@pytest.mark.asyncio
async def test_a_request_tells_when_its_key_was_used(
    store: SqliteStore, rows: ProxyKeyRows
) -> None:
    await rows.add(KEY)
    await store.write([stored_request("r", proxy_key_id="key_1")])
    await store.write([stored_request("q", proxy_key_id="key_1", created_at_ms=1)])
    found = await rows.get("key_1")
    assert found is not None
    assert found["last_used_at"] == iso(instant(T0_MS))


def test_the_newest_use_of_each_key() -> None:
    events = [
        request_event("a", proxy_key_id="k2", created_at_ms=5),
        request_event("b", proxy_key_id="k1", created_at_ms=9),
        request_event("c", proxy_key_id="k1", created_at_ms=7),
        request_event("d"),
    ]
    assert uses(events) == [
        {"id": "k1", "last_used_at": instant(9)},
        {"id": "k2", "last_used_at": instant(5)},
    ]
