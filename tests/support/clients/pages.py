"""Requests as scripts of web pages send them, on bare sockets."""

import pytest

from tests.support.clients.raw import Reply, calling
from tests.support.processes.fleet import Fleet

ASKED = b'{"model": "gpt-5.5", "input": "Say hello"}'
JSON = b"content-type: application/json"
LISTED = b"origin: https://app.example"
BOTH = pytest.mark.parametrize("port", ["gateway", "router"])


def origin(fleet: Fleet, port: str) -> str:
    return fleet.router.origin if port == "router" else fleet.gateways[0].origin


async def asked(
    to: str,
    method: bytes,
    path: bytes,
    *lines: bytes,
    host: bytes | None = None,
    body: bytes | None = None,
) -> Reply:
    head = [b"%b %b HTTP/1.1" % (method, path)]
    own = to.removeprefix("http://").encode()
    head += [b"host: %b" % (own if host is None else host), b"connection: close"]
    head += lines
    if body is not None:
        head.append(b"content-length: %d" % len(body))
    async with calling(to) as caller:
        await caller.send(b"\r\n".join([*head, b"", body or b""]))
        return await caller.reply()


def told(reply: Reply) -> tuple[int, str | None]:
    return reply.status, None if reply.status < 400 else reply.code
