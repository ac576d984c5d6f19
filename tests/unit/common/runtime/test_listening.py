"""The listening socket and who inherits it."""

import os
import socket

import pytest

from libs.common.runtime.listening import (
    LISTENING,
    PARENT,
    AddressTaken,
    bind,
    environment,
)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_bound_socket_has_its_address_and_does_not_block(host: str) -> None:
    with bind(host, 0) as bound:
        assert bound.getsockname()[0] == host
        assert bound.getblocking() is False


def test_a_taken_port_is_one_line_with_the_fix() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressTaken) as refused:
            bind("127.0.0.1", port)
    line = str(refused.value)
    assert line.startswith(f"cannot listen on 127.0.0.1 port {port}: ")
    assert "PROXY_PORT" in line
    assert "\n" not in line


def test_a_child_knows_the_descriptor_and_its_parent() -> None:
    with bind("127.0.0.1", 0) as bound:
        told = environment({"PATH": "/bin"}, bound)
        assert told == {
            "PATH": "/bin",
            LISTENING: str(bound.fileno()),
            PARENT: str(os.getpid()),
        }
