"""Which shards use a database, and whether two Redis servers have one namespace."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from libs.common.redis.keys import Keys
from libs.common.runtime.lifecycle import end
from libs.common.store.rows import iso
from services.router.shards.registration import EVERY_S, LIVES, SKEW, Registration
from services.router.shards.rows import Shard
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio
T0 = datetime(2026, 1, 1, tzinfo=UTC)


class Sql:
    """The table of shards."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Shard] = {}
        self.now = T0

    async def note(self, name: str, instance: str, now: datetime) -> list[Shard]:
        before = self.rows.get((name, instance))
        since = before.since if before else iso(now)
        self.rows[name, instance] = Shard(name, instance, since, iso(now))
        return list(self.rows.values())

    def passes(self, time: timedelta) -> None:
        self.now += time


class Redis:
    """Keeps one key."""

    def __init__(self) -> None:
        self.kept: bytes | None = None

    async def call(self, command: str, key: str, *args: Any) -> bytes | None:
        assert key == "{b}:instance"
        if command == "SET":
            assert args[1] == "NX"
            self.kept = self.kept or args[0].encode()
        return self.kept


def registration(sql: Sql, redis: Redis) -> Registration:
    return Registration(sql, redis, Keys("b"), lambda: sql.now)


async def test_others_are_other_namespaces() -> None:
    sql, redis = Sql(), Redis()
    one, replica = (registration(sql, redis) for _ in range(2))
    assert not one.has_others
    for router in (one, replica):
        await router.note()
    assert (one.has_others, one.problem) == (False, None)
    assert len(sql.rows) == 1
    await sql.note("c", "theirs", sql.now)
    with capture_logs() as logs:
        await one.note()
        await one.note()
    assert (one.has_others, one.problem) == (True, None)
    assert [(log["action"], log["shard"]) for log in logs] == [("shard_found", "c")]


async def test_an_emptied_redis_is_not_another_one() -> None:
    sql, redis = Sql(), Redis()
    router = registration(sql, redis)
    await router.note()
    redis.kept = None
    sql.passes(timedelta(seconds=1))
    await router.note()
    assert len(sql.rows) == 2
    assert router.problem is None
    (before, *_) = sql.rows  # a router with a fast clock wrote it last
    await sql.note(*before, sql.now + SKEW)
    await router.note()
    assert router.problem is None


async def test_two_redis_servers_with_one_namespace() -> None:
    sql, redis = Sql(), Redis()
    ours, theirs = registration(sql, redis), registration(sql, Redis())
    with capture_logs() as logs:
        for router in (ours, theirs) * 3:
            await router.note()
            sql.passes(timedelta(seconds=EVERY_S / 2))
    assert ours.problem is not None
    assert "PROXY_REDIS_NAMESPACE, b" in ours.problem
    assert [log["action"] for log in logs] == ["namespace_taken"] * 2
    sql.passes(LIVES)
    await ours.note()
    assert ours.problem is None


async def test_before_it_is_registered_nothing_is_said() -> None:
    assert registration(Sql(), Redis()).problem is None


async def test_the_loop_registers() -> None:
    sql = Sql()
    running = asyncio.create_task(registration(sql, Redis()).run())

    async def noted() -> bool:
        return bool(sql.rows)

    await eventually(noted)
    await end([running])
