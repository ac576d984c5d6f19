"""Looking at the server at Redis's address."""

import socket

import pytest
import redis

from libs.cli.plan import RedisSeen
from libs.cli.redis_server import look
from libs.common.redis import keys
from tests.support.databases import function_keys


@pytest.mark.parametrize(
    ("key", "seen"),
    [
        pytest.param(None, RedisSeen.EMPTY, id="empty"),
        pytest.param(keys.catalogue(), RedisSeen.OURS, id="our catalogue"),
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
