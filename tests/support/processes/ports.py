"""Ports for what tests start. Nobody else takes one between the test that asks and the
process that listens: they lie outside those that the system gives to connections, and
each process that runs tests has a block of them to itself."""

import socket
from collections.abc import Iterator
from functools import cache
from itertools import cycle
from pathlib import Path

BLOCK = 500
BLOCKS = 40
LOWEST, END = 1_024, 65_536
GIVEN = Path("/proc/sys/net/ipv4/ip_local_port_range")


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
    for first in _firsts():
        try:
            held = _bound(first)
        except OSError:
            continue  # another process's block
        return held, cycle(range(first + 1, first + BLOCK))
    raise RuntimeError("no block of ports is free")


def _firsts() -> list[int]:
    """The first ports of blocks: the highest below the ports that the system gives to
    connections, or else above those."""
    low, high = map(int, GIVEN.read_text().split())
    below = range(low - BLOCK, LOWEST - 1, -BLOCK)
    above = range(high + 1, END - BLOCK + 1, BLOCK)
    return [*below, *above][:BLOCKS]


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    try:
        bound.bind(("127.0.0.1", port))
    except OSError:
        bound.close()
        raise
    return bound
