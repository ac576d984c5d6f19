"""Clients by URL, and why one cannot be used. Sentinels that name another primary, and
TLS, are in tests/integration/redis/test_redis_failover.py and test_redis_tls.py."""

import asyncio
import ssl
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio import sentinel as loops
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.sentinel import MasterNotFoundError

from libs.common.redis.factory import (
    SENTINEL_TIMEOUT_S,
    blocking_client,
    cause_of,
    client,
    replaced,
    replaced_blocking,
)
from tests.support.databases.resp import Command, scripted

SENTINELS = "redis+sentinel://app:pass@a:26379,b/mymaster/3?sentinel_password=guard"


def made(url: str, *, blocking: bool) -> Any:
    return (blocking_client if blocking else client)(url, 2.0, 5.0)


@pytest.mark.parametrize("blocking", [False, True])
def test_one_server(blocking: bool) -> None:
    options = made("redis://:p@h:6380/2", blocking=blocking).connection_pool
    options = options.connection_kwargs
    told = {name: options[name] for name in ("host", "port", "db", "password")}
    assert told == {"host": "h", "port": 6380, "db": 2, "password": "p"}
    assert (options["socket_connect_timeout"], options["socket_timeout"]) == (2, 5)
    assert options["protocol"] == 2


@pytest.mark.parametrize("blocking", [False, True])
def test_sentinels_have_credentials_and_patience_of_their_own(blocking: bool) -> None:
    pool = made(SENTINELS, blocking=blocking).connection_pool
    assert pool.service_name == "mymaster"
    primary = pool.connection_kwargs
    assert (primary["username"], primary["password"]) == ("app", "pass")
    assert primary["db"] == 3
    watched = pool.sentinel_manager.sentinels
    addresses = [
        (s.connection_pool.connection_kwargs["host"],
         s.connection_pool.connection_kwargs["port"])
        for s in watched
    ]  # fmt: skip
    assert addresses == [("a", 26379), ("b", 26379)]
    theirs = watched[0].connection_pool.connection_kwargs
    assert theirs["socket_timeout"] == SENTINEL_TIMEOUT_S
    assert theirs["password"] == "guard"
    assert (theirs["username"], theirs["db"]) == (None, 0)


@pytest.mark.parametrize("blocking", [False, True])
def test_tls_is_for_sentinels_too(blocking: bool) -> None:
    url = SENTINELS.replace("redis+", "rediss+")
    pool = made(url, blocking=blocking).connection_pool
    theirs = pool.sentinel_manager.sentinels[0].connection_pool
    assert "SSL" in theirs.connection_class.__name__
    assert "SSL" in pool.connection_class.__name__


# Sentinels that are asked again ---------------------------------------------


def primary_at(port: int) -> Any:
    """The answer to SENTINEL MASTERS."""
    fields = {
        "name": "mymaster", "ip": "127.0.0.1", "port": port, "flags": "master",
        "num-other-sentinels": 0, "num-slaves": 0, "quorum": 1,
    }  # fmt: skip
    flat = [str(part).encode() for pair in fields.items() for part in pair]

    def answer(command: Command) -> Any:
        assert command[0] == b"SENTINEL"
        return [flat]

    return answer


def sentinels_at(url: str) -> str:
    return url.replace("redis://", "redis+sentinel://").replace("/0", "/mymaster/0")


@pytest.mark.asyncio
@pytest.mark.parametrize(("port", "expected"), [(7001, False), (7002, True)])
async def test_a_primary_that_was_replaced_is_noticed(
    port: int, expected: bool
) -> None:
    connection = SimpleNamespace(host="127.0.0.1", port=7001)
    async with scripted(primary_at(port)) as sentinel:
        url = sentinels_at(sentinel.url)
        watching = client(url, 1, 1)
        assert await replaced(watching, connection) is expected
        await watching.aclose()
        await watching.connection_pool.disconnect()
        blocking = blocking_client(url, 1, 1)
        found = await asyncio.to_thread(replaced_blocking, blocking, connection)
        assert found is expected
        blocking.close()


@pytest.mark.asyncio
async def test_sentinels_that_do_not_answer_replace_nothing() -> None:
    async with scripted(primary_at(1)) as sentinel:
        url = sentinels_at(sentinel.url)
    connection = SimpleNamespace(host="127.0.0.1", port=7001)
    watching = client(url, 1, 1)
    assert await replaced(watching, connection) is False
    await watching.connection_pool.disconnect()
    blocking = blocking_client(url, 1, 1)
    found = await asyncio.to_thread(replaced_blocking, blocking, connection)
    assert found is False


@pytest.mark.asyncio
async def test_commands_go_to_the_primary_that_sentinels_name() -> None:
    async with scripted(lambda _: b"v") as primary:
        port = int(primary.url.rpartition(":")[2].partition("/")[0])
        async with scripted(primary_at(port)) as sentinel:
            watching = client(sentinels_at(sentinel.url), 1, 1)
            assert await watching.get("k") == b"v"
            await watching.aclose()
            await watching.connection_pool.disconnect()
    assert primary.commands == [[b"GET", b"k"]]


@pytest.mark.asyncio
async def test_a_server_that_no_sentinel_watches_is_never_replaced() -> None:
    redis: Redis = client("redis://h", 1, 1)
    assert await replaced(redis, object()) is False
    assert replaced_blocking(blocking_client("redis://h", 1, 1), object()) is False


# Why not --------------------------------------------------------------------


def failed_handshake() -> Exception:
    """As redis-py raises it."""
    cause = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    cause.reason = "WRONG_VERSION_NUMBER"
    error = RedisConnectionError("Error 1 connecting")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RedisConnectionError("Error 111 connecting.\n"), "Error 111 connecting"),
        (RedisError(""), "RedisError"),
        (OSError(), "OSError"),
        (TimeoutError("whatever"), "no answer in time"),
        (ResponseError("OOM"), "it refuses: OOM"),
        (AuthenticationError("WRONGPASS."), "it refuses the user: WRONGPASS"),
        (NoPermissionError("no"), "it refuses the user: no"),
        (failed_handshake(), "TLS: wrong version number"),
        (
            MasterNotFoundError("No master found for 'm'"),
            "no Sentinel that answers knows a primary of that name",
        ),
        (
            loops.MasterNotFoundError("error: invalid password (WRONGPASS)"),
            "no Sentinel tells the primary: WRONGPASS",
        ),
        (
            MasterNotFoundError("certificate verify failed: x"),
            "no Sentinel tells the primary: certificate verify failed",
        ),
    ],
)
def test_why_redis_cannot_be_used(error: Exception, cause: str) -> None:
    assert cause_of(error) == cause


@pytest.mark.parametrize(
    "kind", [RedisConnectionError, ResponseError, NoPermissionError]
)
def test_a_cause_is_short_and_one_line(kind: type[Exception]) -> None:
    cause = cause_of(kind("very long " * 100))
    assert len(cause) < 250
    assert "\n" not in cause
