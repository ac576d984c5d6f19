"""Recognizes addresses of this machine."""

import socket
from contextlib import closing


def is_local(address: str) -> bool:
    """Whether `address` belongs to this machine: only then can a socket bind to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with closing(socket.socket(family, socket.SOCK_DGRAM)) as sock:
            sock.bind((address, 0))
    except OSError:
        return False
    return True
