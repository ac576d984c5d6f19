"""Inspecting the server at Redis's address, and free ports."""

import os
import socket

import pytest
import redis

from libs.cli.observe import check_port, see_redis, valkey_binary
from libs.cli.plan import RedisSeen
from libs.common.errors import SettingError
from libs.common.redis import keys
from tests.support.databases import function_keys
from tests.support.processes.ports import free_port


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

    assert see_redis(valkey) is seen


def test_a_server_that_wants_a_password(valkey: str) -> None:
    with redis.Redis.from_url(valkey) as client:
        client.config_set("requirepass", "hush")
        try:
            assert see_redis(valkey) is RedisSeen.LOCKED
        finally:
            client.config_set("requirepass", "")


def test_no_server() -> None:
    assert see_redis(f"redis://127.0.0.1:{free_port()}/0") is RedisSeen.ABSENT


def test_something_that_is_no_redis() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        assert see_redis(url) is RedisSeen.ABSENT


def test_a_free_port_may_be_used() -> None:
    check_port("127.0.0.1", free_port(), "PROXY_PORT")


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(SettingError, match=f"^PROXY_PORT: is {port}, but anoth"):
            check_port("127.0.0.1", port, "PROXY_PORT")


@pytest.mark.parametrize("host", ["203.0.113.1", "no-such-host.invalid"])
def test_an_address_of_another_machine(host: str) -> None:
    with pytest.raises(SettingError, match=r"^PROXY_HOST: is not an address of"):
        check_port(host, free_port(), "PROXY_PORT")


def test_the_embedded_server_can_be_run() -> None:
    assert os.access(valkey_binary(), os.X_OK)
