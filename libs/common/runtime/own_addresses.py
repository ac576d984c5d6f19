"""Which addresses are this machine's."""

import socket
from contextlib import closing


def is_local(address: str) -> bool:
    """Is `address` one of this machine's? The kernel binds a socket to no other."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with closing(socket.socket(family, socket.SOCK_DGRAM)) as sock:
            sock.bind((address, 0))
    except OSError:
        return False
    return True
