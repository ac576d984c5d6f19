"""An attacker's web site: serves pages to a browser and records requests."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.processes.serving import serving

BLANK = b"<!doctype html><title>somebody else's page</title>"


@dataclass
class Site:
    """Listens on loopback and records all requests."""

    port: int = 0
    heard: list[bytes] = field(default_factory=list)

    @property
    def stolen(self) -> list[bytes]:
        """Requests that carry an upstream key."""
        return [request for request in self.heard if b"sk-secret" in request]

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = b"\r\n\r\n"
        request = await reader.readuntil(head)
        self.heard.append(request)
        answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n"
        writer.write(answer + b"content-length: %d%b%b" % (len(BLANK), head, BLANK))


@asynccontextmanager
async def attacking() -> AsyncIterator[Site]:
    """The site, on the same port of 127.0.0.1 and 127.0.0.2."""
    site = Site()
    async with (
        serving(site.serve) as site.port,
        serving(site.serve, "127.0.0.2", site.port),
    ):
        yield site


def sent(url: str, body: object = None, **more: Any) -> str:
    """A script that sends a request and returns what its page could read."""
    options: Any = {"method": "GET", **more}
    if body is not None:
        options = {"method": "POST", "body": json.dumps(body), **more}
    options = json.dumps(options)
    return f"""
        try {{
            const answer = await fetch({json.dumps(url)}, {options});
            return [answer.type, answer.status, await answer.text()];
        }} catch (error) {{ return ["error", 0, String(error)]; }}
    """


def socket(address: str) -> str:
    """A script that opens a WebSocket and returns the result."""
    return f"""
        const socket = new WebSocket({json.dumps(address + "/v1/responses")});
        return await new Promise((done) => {{
            socket.onopen = () => done("open");
            socket.onerror = () => done("error");
        }});
    """
