"""Proxy keys in SQL, here in a file. The same on Postgres is in
tests/integration/security/test_proxy_keys.py."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import pytest_asyncio

from libs.common.budgets import Budget, shown_terms
from libs.common.proxy_keys import Policy, Principal
from libs.common.store.interface import Cursor
from libs.common.store.proxy_keys import NewKey, ProxyKeyRows, TeamRows, uses
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
        "queue_weight": 1.0,
        "policy": None,
        **shown_terms({}),
        "enabled": True,
        "version": ANY,
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
        team_id="red", name="nightly", prefix="rpx_abcdef",
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
    assert changed == {**before, **expected, "version": ANY}
    assert changed is not None
    assert changed["version"] != before["version"]


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
        ("1970-01-01T00:00:00.009Z", "k1"),
        ("1970-01-01T00:00:00.005Z", "k2"),
    ]


@pytest.fixture
def teams(store: SqliteStore) -> TeamRows:
    return TeamRows(store.fetch)


@pytest.mark.asyncio
async def test_a_key_has_its_policy_and_that_of_its_team(
    rows: ProxyKeyRows, teams: TeamRows
) -> None:
    added = await rows.add(replace(KEY, policy={"models": ["gpt-*"]}))
    assert added["policy"] == {"models": ["gpt-*"]}
    await teams.add({"id": "red", "name": "", "policy": {"ip_allow": ["::1"]}}, AT)
    own, teams_own = Policy(models=("gpt-*",)), Policy(ip_allow=("::1",))
    assert (await rows.records())["hash-1"].policies == (own, teams_own)
    changed = await rows.change("key_1", {"policy": None})
    assert changed is not None
    assert changed["policy"] is None
    record = await rows.record("key_1")
    assert record is not None
    assert record[1] is not None
    assert record[1].policies == (teams_own,)


@pytest.mark.asyncio
async def test_defaults_of_a_team(teams: TeamRows, rows: ProxyKeyRows) -> None:
    defaults = {"pools": ["a"], "queue_weight": 2.0}
    red = {"id": "red", "name": "", "policy": None, "key_defaults": defaults}
    made = await teams.add(red, AT)
    assert made is not None
    assert made["key_defaults"] == defaults
    assert await rows.defaults("red") == {"pools": ("a",), "queue_weight": 2.0}
    assert await rows.defaults("blue") == {}
    changed = await teams.change("red", {"key_defaults": None})
    assert changed is not None
    assert changed["key_defaults"] is None
    assert await rows.defaults("red") == {}


@pytest.mark.asyncio
async def test_members_of_a_team(
    teams: TeamRows, rows: ProxyKeyRows, store: SqliteStore
) -> None:
    await rows.add(KEY)
    await rows.add(replace(KEY, id="key_2", secret_hash="hash-2"))
    await rows.add(replace(KEY, id="other", secret_hash="hash-3", team_id="blue"))
    used: dict[str, Any] = {
        "team_id": "red", "input_tokens": 2, "output_tokens": 3, "total_tokens": 5,
    }  # fmt: skip
    await store.write(
        [
            stored_request("r1", proxy_key_id="key_1", **used),
            stored_request("r2", proxy_key_id="key_1", **used),
            stored_request("r3", proxy_key_id="gone", **used),
            stored_request("r4", proxy_key_id="other", **{**used, "team_id": "blue"}),
        ]
    )
    members = await teams.members("red", instant(T0_MS - 1))
    assert [(each["id"], each.get("requests")) for each in members] == [
        ("key_2", None),
        ("key_1", 2),
        ("gone", 1),
    ]
    assert members[1]["total_tokens"] == 10
    assert members[1]["enabled"] is True
    later = await teams.members("red", instant(T0_MS + 10**9))
    assert [each["id"] for each in later] == ["key_2", "key_1"]


@pytest.mark.asyncio
async def test_teams(rows: ProxyKeyRows, teams: TeamRows) -> None:
    red = {"id": "red", "name": "Red", "policy": None}
    shown = {
        **red, **shown_terms({}), "key_defaults": None, "keys": 0,
        "created_at": iso(AT), "version": ANY,
    }  # fmt: skip
    assert await teams.add(red, AT) == shown
    assert await teams.add(red, AT) is None
    await teams.add({"id": "blue", "name": "", "policy": None}, AT)
    await rows.add(KEY)
    assert await teams.get("red") == {**shown, "keys": 1}
    assert [team["id"] for team in await teams.page(10, "")] == ["blue", "red"]
    assert [team["id"] for team in await teams.page(10, "blue")] == ["red"]
    policy = {"max_output_tokens": 9}
    assert await teams.change("red", {"policy": policy}) == {
        **shown,
        "keys": 1,
        "policy": policy,
    }
    assert not await teams.delete("red")  # it has a key
    await rows.revoke("key_1", AT)
    assert await teams.delete("red")
    assert await teams.get("red") is None


@pytest.mark.asyncio
async def test_budgets_of_a_key_and_its_team(
    rows: ProxyKeyRows, teams: TeamRows
) -> None:
    team = {"id": "red", "name": "Red", "policy": None, "budget_usd": 2.5}
    assert await teams.add({**team, "budget_window": "day"}, AT)
    await rows.add(replace(KEY, budget={"tokens": 9}))
    changed = await rows.change("key_1", {"budget_reserve": True})
    assert changed is not None
    assert (changed["budget_tokens"], changed["budget_reserve"]) == (9, True)
    record = await rows.record("key_1")
    assert record is not None
    assert record[1] is not None
    own = Budget("key:key_1", "nightly", tokens=9, reserve=True)
    of_team = Budget("team:red", "Red", nanos=2_500_000_000, window="day")
    assert record[1].budgets == (own, of_team)
    await rows.change("key_1", {"budget_tokens": None, "budget_soft_percent": 50})
    await teams.change("red", {"budget_usd": None, "budget_tokens": 7})
    assert record != (record := await rows.record("key_1"))
    assert record is not None
    assert record[1] is not None
    assert record[1].budgets == (Budget("team:red", "Red", tokens=7, window="day"),)


@pytest.mark.asyncio
@pytest.mark.parametrize("id_", ["green", "red\0", "\ud83d"])
async def test_a_team_that_is_not_there(teams: TeamRows, id_: str) -> None:
    assert await teams.get(id_) is None
    assert await teams.change(id_, {"name": "x"}) is None
    assert not await teams.delete(id_)
