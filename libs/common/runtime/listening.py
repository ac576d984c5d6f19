"""Binds the listening socket of a gateway, and hands it to child processes."""

import os
import socket
from collections.abc import Mapping

LISTENING = "RPX_LISTENING_FD"  # the descriptor of the parent's socket
PARENT = "RPX_PARENT_PID"


class AddressTaken(Exception):
    """Another process listens there."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that is bound and not yet listening. Raises `AddressTaken`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(1)  # bind alone does not fail when another process listens
    except OSError as error:
        sock.close()
        raise AddressTaken(
            f"cannot listen on {host} port {port}: {error.strerror}. Stop what uses "
            "it, or set PROXY_PORT (PROXY_HOST for the address)"
        ) from None
    sock.setblocking(False)
    return sock


def environment(environ: Mapping[str, str], listening: socket.socket) -> dict[str, str]:
    """The environment of a child that inherits `listening`; pass its descriptor on."""
    return {
        **environ,
        LISTENING: str(listening.fileno()),
        PARENT: str(os.getpid()),
    }
