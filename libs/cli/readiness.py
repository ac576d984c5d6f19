"""Asks a service on this machine whether it is ready.

Containers run this every few seconds, so it imports very little: the HTTP client of the
standard library takes as long as the interpreter."""

import socket
from urllib.parse import urlsplit

TIMEOUT_S = 1.0
LONGEST = 8_192  # bytes of an answer; more is not read
LONGEST_REASON = 2_000
READY = "200"


def readiness(url: str) -> str | None:
    """None if the service at `url` is ready, else the reason."""
    parts = urlsplit(url)
    try:
        head, _, body = _answer(parts.hostname or "", parts.port or 80).partition(
            b"\r\n\r\n"
        )
        version, status, *_ = head.decode("latin-1").split(maxsplit=2)
        if not version.startswith("HTTP/1."):
            raise ValueError("its answer is not HTTP")
    except (OSError, ValueError) as error:
        return f"no answer at {url} ({error})"
    if status == READY:
        return None
    reason = body[:LONGEST_REASON].decode(errors="replace").strip()
    return f"status {status}, {reason}"


def _answer(host: str, port: int) -> bytes:
    """The answer of a service: it ends where the connection does, and has no chunks."""
    with socket.create_connection((host, port), TIMEOUT_S) as connection:
        named = f"[{host}]" if ":" in host else host
        # Not HTTP/1.0, which the router answers with 500.
        request = f"GET /readyz HTTP/1.1\r\nHost: {named}:{port}\r\n"
        connection.sendall(f"{request}Connection: close\r\n\r\n".encode())
        read = b""
        while len(read) < LONGEST and (piece := connection.recv(LONGEST)):
            read += piece
        return read
