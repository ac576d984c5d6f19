"""Looking at the server at Redis's address."""

import socket

import pytest
import redis

from libs.cli.plan import RedisSeen
from libs.cli.redis_server import look
from libs.common.redis.keys import DEFAULT, Keys
from services.router.function_library import library
from tests.support.databases import function_keys


@pytest.mark.parametrize(
    ("key", "seen"),
    [
        pytest.param(None, RedisSeen.EMPTY, id="empty"),
        pytest.param(DEFAULT.catalogue(), RedisSeen.OURS, id="our catalogue"),
        pytest.param(
            function_keys.gateways(), RedisSeen.OURS, id="only traces of ours"
        ),
        pytest.param("celery", RedisSeen.FOREIGN, id="somebody else's"),
    ],
)
def test_a_server_by_what_it_holds(
    valkey: str, key: str | None, seen: RedisSeen
) -> None:
    if key:
        with redis.Redis.from_url(valkey) as client:
            client.set(key, "x")

    assert look(valkey, 1.0)[0] is seen


def test_other_stacks_are_told_from_other_applications(valkey: str) -> None:
    """By their functions: a stack reads no keys of another."""
    other = Keys("b_2")
    with redis.Redis.from_url(valkey) as client:
        client.set(other.catalogue(), "x")
        assert look(valkey, 1.0)[0] is RedisSeen.FOREIGN
        client.execute_command("FUNCTION", "LOAD", library(other))
    assert look(valkey, 1.0)[0] is RedisSeen.SHARED
    assert look(valkey, 1.0, other)[0] is RedisSeen.OURS
    assert not RedisSeen.SHARED.usable  # `up` takes it only if it is configured


def test_a_user_who_may_not_list_functions(valkey: str) -> None:
    url = valkey.replace("redis://", "redis://few:hush@")
    with redis.Redis.from_url(valkey) as client:
        client.set("celery", "x")
        client.execute_command(
            "ACL", "SETUSER", "few", "on", ">hush", "~*", "+@all", "-function"
        )
        try:
            assert look(url, 1.0)[0] is RedisSeen.FOREIGN
        finally:
            client.execute_command("ACL", "DELUSER", "few")


def test_a_server_that_wants_a_password(valkey: str) -> None:
    with redis.Redis.from_url(valkey) as client:
        client.config_set("requirepass", "hush")
        try:
            assert look(valkey, 1.0)[0] is RedisSeen.LOCKED
        finally:
            client.config_set("requirepass", "")


def test_something_that_is_no_redis() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        assert look(url, 0.5)[0] is RedisSeen.ABSENT
