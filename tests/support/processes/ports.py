"""Free ports for test processes. Nobody can take a port between the test that asks for
it and the process that listens: the ports are outside the range that the system assigns
to connections, and each test process reserves a block."""

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
    """A port that nobody listens on."""
    _, ports = _block()
    for _ in range(BLOCK):
        port = next(ports)
        try:
            _bound(port).close()
        except OSError:
            continue  # another program's, or an earlier connection lingers on it
        return port
    raise RuntimeError("no free port")


@cache
def _block() -> tuple[socket.socket, Iterator[int]]:
    """The block is ours while its first port is bound, until this process ends."""
    for first in _firsts():
        try:
            held = _bound(first)
        except OSError:
            continue  # another process's block
        return held, cycle(range(first + 1, first + BLOCK))
    raise RuntimeError("no block of ports is free")


def _firsts() -> list[int]:
    """The first ports of blocks: the highest below the system's ephemeral range, or
    else above it."""
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
