"""Ports for what tests start. Nobody else takes one between the test that asks and the
process that listens: they lie below those that the system gives to connections, and
each process that runs tests has a block of them to itself."""

import socket
from collections.abc import Iterator
from functools import cache
from itertools import cycle

FIRST, END = 12_000, 32_000
BLOCK = 500


def free_port() -> int:
    """A port nobody listens on right now."""
    _, ports = _block()
    for _ in range(BLOCK):
        port = next(ports)
        try:
            _bound(port).close()
        except OSError:
            continue  # a stranger's, or a connection of before lingers on it
        return port
    raise RuntimeError("no free port")


@cache
def _block() -> tuple[socket.socket, Iterator[int]]:
    """Ours for as long as its first port is bound, which ends with the process."""
    for first in range(FIRST, END, BLOCK):
        try:
            held = _bound(first)
        except OSError:
            continue  # another process's block
        return held, cycle(range(first + 1, first + BLOCK))
    raise RuntimeError("no block of ports is free")


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    try:
        bound.bind(("127.0.0.1", port))
    except OSError:
        bound.close()
        raise
    return bound
