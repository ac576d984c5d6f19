"""Stored proxy keys: in SQL, on either database, and in Redis."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import ANY

import pytest
import pytest_asyncio
from redis import Redis as PlainRedis

from libs.common.budgets import shown_terms
from libs.common.proxy_keys import Principal, new_secret, secret_hash
from libs.common.redis.client import Caller, ClientCaller
from libs.common.redis.key_table import KeyTable
from libs.common.redis.keys import DEFAULT
from libs.common.redis.shared_connection import Refused, SharedConnection, connect
from libs.common.routing.functions import RoutingFunctions
from libs.common.store.interface import Cursor
from libs.common.store.proxy_keys import NewKey, ProxyKeyRows
from libs.common.store.store import Store
from services.router.function_library import LIBRARY
from tests.support.databases.valkey import empty
from tests.support.values.telemetry import T0_MS, stored_request

pytestmark = pytest.mark.asyncio
BORN = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
KEY = NewKey(
    id="key_1",
    name="ci",
    prefix="rpx_abcdef",
    secret_hash=secret_hash(b"rpx_secret"),
    pool_id=None,
    pools=(),
    expires_at=None,
    requests_per_minute=None,
    tokens_per_minute=None,
    created_at=BORN,
)
SHOWN: dict[str, Any] = {
    "id": "key_1",
    "name": "ci",
    "prefix": "rpx_abcdef",
    "team_id": None,
    "pool_id": None,
    "pools": [],
    "expires_at": None,
    "requests_per_minute": None,
    "tokens_per_minute": None,
    "queue_weight": 1.0,
    "policy": None,
    **shown_terms({}),
    "enabled": True,
    "version": ANY,
    "created_at": "2026-01-02T03:04:05.678Z",
    "last_used_at": None,
    "revoked_at": None,
}


class TestSecrets:
    async def test_no_two_are_equal_and_all_are_long(self) -> None:
        made = {new_secret() for _ in range(1000)}
        assert len(made) == 1000
        assert {len(secret) for secret in made} == {47}
        assert all(secret.startswith("rpx_") and secret.isascii() for secret in made)


class TestRows:
    @pytest.fixture
    def rows(self, store: Store) -> ProxyKeyRows:
        return ProxyKeyRows(store.fetch)

    async def test_a_key_is_shown_without_its_hash(self, rows: ProxyKeyRows) -> None:
        assert await rows.add(KEY) == SHOWN
        assert await rows.get("key_1") == SHOWN
        assert await rows.get("key_2") is None
        assert await rows.get("key\0") is None

    async def test_all_fields_are_kept(self, rows: ProxyKeyRows) -> None:
        full = replace(
            KEY,
            pool_id="a",
            pools=("a", "b"),
            expires_at=BORN + timedelta(days=1),
            requests_per_minute=60,
            tokens_per_minute=10**12,
        )
        assert await rows.add(full) == {
            **SHOWN,
            "pool_id": "a",
            "pools": ["a", "b"],
            "expires_at": "2026-01-03T03:04:05.678Z",
            "requests_per_minute": 60,
            "tokens_per_minute": 10**12,
        }
        assert await rows.records() == {
            KEY.secret_hash: Principal(
                id="key_1",
                pool_id="a",
                pools=("a", "b"),
                expires_at_ms=round((BORN.timestamp() + 86_400) * 1000),
                requests_per_minute=60,
                tokens_per_minute=10**12,
                name="ci",
                prefix="rpx_abcdef",
            )
        }

    async def test_pages_newest_first(self, rows: ProxyKeyRows) -> None:
        for number in range(5):
            # Ids distinguish two keys of the same millisecond.
            at = BORN + timedelta(milliseconds=number // 2)
            key = replace(KEY, id=f"key_{number}", secret_hash=f"{number}")
            await rows.add(replace(key, created_at=at))
        seen: list[str] = []
        cursor = None
        for _ in range(3):
            page = await rows.page(2, cursor)
            seen.extend(row["id"] for row in page.rows)
            cursor = Cursor.decode(page.next_cursor) if page.next_cursor else None
        assert (seen, cursor) == ([f"key_{n}" for n in (4, 3, 2, 1, 0)], None)

    async def test_only_what_is_given_changes(self, rows: ProxyKeyRows) -> None:
        await rows.add(replace(KEY, requests_per_minute=5))
        expires = BORN + timedelta(hours=1)
        changed = await rows.change("key_1", {"expires_at": expires, "pools": ["x"]})
        expected = {
            **SHOWN,
            "requests_per_minute": 5,
            "pools": ["x"],
            "expires_at": "2026-01-02T04:04:05.678Z",
        }
        assert changed == expected
        lifted = {
            "name": "new", "enabled": False, "pool_id": "p", "expires_at": None,
            "requests_per_minute": None, "tokens_per_minute": 7, "pools": (),
        }  # fmt: skip
        assert await rows.change("key_1", lifted) == {**SHOWN, **lifted, "pools": []}
        assert await rows.change("key_1", {}) == {**SHOWN, **lifted, "pools": []}
        assert await rows.change("key_2", {"name": "x"}) is None

    async def test_a_revoked_key_stays_and_never_comes_back(
        self, rows: ProxyKeyRows
    ) -> None:
        await rows.add(KEY)
        shown = Principal(id="key_1", name="ci", prefix="rpx_abcdef")
        assert await rows.record("key_1") == (KEY.secret_hash, shown)
        revoked = await rows.revoke("key_1", BORN)
        assert revoked == {
            **SHOWN,
            "enabled": False,
            "revoked_at": SHOWN["created_at"],
        }
        assert await rows.revoke("key_1", BORN + timedelta(days=1)) == revoked
        assert await rows.change("key_1", {"enabled": True}) is None
        assert await rows.records() == {}
        assert await rows.record("key_1") == (KEY.secret_hash, None)
        assert (await rows.page(10, None)).rows == (revoked,)
        assert await rows.revoke("key_2", BORN) is None
        assert await rows.record("key_2") is None

    async def test_requests_tell_when_a_key_was_used(
        self, store: Store, rows: ProxyKeyRows
    ) -> None:
        await rows.add(KEY)
        at = {"proxy_key_id": "key_1", "completed_at_ms": T0_MS + 9_000}
        newest = stored_request("b", created_at_ms=T0_MS + 5_000, **at)
        older = [stored_request("a", **at), stored_request("c", proxy_key_id="gone")]
        for batch in ([newest, *older], older, [stored_request("d")], [newest]):
            await store.write(batch)
            row = await rows.get("key_1")
            assert row is not None
            assert row["last_used_at"] == "2023-11-14T22:13:25.123Z"


@pytest_asyncio.fixture
async def caller(valkey: str) -> AsyncIterator[Caller]:
    """A Redis with the function library."""
    client = connect(valkey)
    shared = SharedConnection(client)
    await shared.open()
    await RoutingFunctions(shared, "s", library=LIBRARY).load_library()
    yield shared
    await shared.close()
    await client.aclose()


class TestTable:
    async def test_changes_are_read_as_they_were_written(self, caller: Caller) -> None:
        table = KeyTable(caller)
        assert await table.version() is None
        a = Principal(id="a", pools=("x",), expires_at_ms=5, enabled=False)
        assert await table.change(None, {"1": a, "2": Principal(id="b")})
        first = await table.version()
        assert await table.read() == {"1": a, "2": Principal(id="b")}
        assert await table.change(first, {"3": Principal(id="c")}, ("1", "9"))
        assert await table.read() == {"2": Principal(id="b"), "3": Principal(id="c")}
        assert int(await table.version() or 0) == int(first or 0) + 1

    async def test_by_an_ordinary_client_too(self, valkey: str, caller: Caller) -> None:
        client = connect(valkey)
        table = KeyTable(ClientCaller(client))
        assert await table.change(None, {"1": Principal(id="a")})
        assert await table.read() == {"1": Principal(id="a")}
        await client.aclose()

    async def test_who_looked_before_another_changed_it_changes_nothing(
        self, caller: Caller
    ) -> None:
        table = KeyTable(caller)
        assert await table.change(None, {"1": Principal(id="a")})
        seen = await table.version()
        assert await table.change(seen, {"2": Principal(id="b")})
        for old in (seen, None):
            assert not await table.change(old, {"3": Principal(id="c")}, ("1",))
        assert set(await table.read()) == {"1", "2"}

    async def test_no_version_comes_twice_when_redis_was_emptied(
        self, valkey: str, caller: Caller
    ) -> None:
        table = KeyTable(caller)
        await table.change(None, {})
        before = int(await table.version() or 0)
        with PlainRedis.from_url(valkey) as other:
            other.flushdb()
        later = int(time.time() * 1000)
        while int(time.time() * 1000) <= later:
            pass
        await table.change(None, {})
        assert int(await table.version() or 0) > before

    async def test_ten_thousand_keys_at_once(self, caller: Caller) -> None:
        table = KeyTable(caller)
        many = {f"{n:064x}": Principal(id=f"key_{n}") for n in range(10_000)}
        assert await table.change(None, many)
        assert await table.read() == many

    async def test_a_record_that_is_none_of_ours_spoils_only_itself(
        self, valkey: str, caller: Caller
    ) -> None:
        table = KeyTable(caller)
        await table.change(None, {"1": Principal(id="a")})
        with PlainRedis.from_url(valkey) as other:
            other.hset(DEFAULT.proxy_keys(), "2", "{")
            other.hset(DEFAULT.proxy_keys(), "3", '{"id":"c","invented_later":1}')
        assert await table.read() == {"1": Principal(id="a"), "3": Principal(id="c")}

    async def test_without_the_library_it_says_so(
        self, valkey: str, caller: Caller
    ) -> None:
        empty(valkey)
        with pytest.raises(Refused):
            await KeyTable(caller).change(None, {})
