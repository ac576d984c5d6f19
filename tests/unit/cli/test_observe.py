"""Inspecting the server at Redis's address, and free ports."""

import errno
import os
import socket

import pytest

from libs.cli.observe import check_port, look_at_redis, see_redis, valkey_binary
from libs.cli.plan import RedisSeen
from libs.common.errors import SettingError
from tests.support.processes.ports import free_port


def test_no_server() -> None:
    host, port = "127.0.0.1", free_port()
    seen, cause = look_at_redis(f"redis://u:hush@{host}:{port}/0", 1.0)
    assert seen is RedisSeen.ABSENT
    number = errno.ECONNREFUSED
    assert cause == f"Error {number} connecting to {host}:{port}. Connection refused"


def test_a_server_that_answers_is_looked_at(valkey: str) -> None:
    assert see_redis(valkey).usable


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
