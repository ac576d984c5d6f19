"""Compares a request through a gateway with the same request sent directly."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from libs.common.headers import find
from tests.support.clients.wire import (
    Message,
    Reply,
    Scripted,
    read_answer,
    write_pieces,
)
from tests.support.processes.stack import Stack, gateway_before

KEY = "sk-upstream"


@dataclass(frozen=True)
class Exchange:
    """A request as a client sends it, and its answer."""

    method: str
    request: tuple[bytes, ...]
    reply: Reply


@dataclass(frozen=True)
class Rig:
    """Two ways to one upstream: through the gateway and directly."""

    upstream: Scripted
    stack: Stack
    direct_port: int

    @property
    def gateway_port(self) -> int:
        return int(self.stack.environ["PROXY_PORT"])

    async def ask(
        self, port: int, said: Sequence[Exchange]
    ) -> list[tuple[Message, Message]]:
        """What the upstream received and what the client received, on one connection as
        long as it is kept."""
        got = []
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for exchange in said:
                if writer.is_closing():
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                self.upstream.reply = exchange.reply
                await write_pieces(writer, exchange.request)
                answer = await read_answer(reader, exchange.method)
                got.append((self.upstream.got.pop(), answer))
                assert not self.upstream.got
                options = (find(answer.headers, b"connection") or b"").lower()
                if exchange.reply.closes or options == b"close":
                    writer.close()
        finally:
            writer.close()
        return got


@asynccontextmanager
async def gateway_rig(valkey: str, folder: Path) -> AsyncIterator[Rig]:
    upstream = Scripted()
    settings = {"OPENAI_API_KEYS": KEY, "OPENAI_RESOURCE_ACCOUNT_IDS": "acct"}
    async with gateway_before(upstream.handle, valkey, folder, **settings) as stack:
        port = urlsplit(stack.environ["PROXY_UPSTREAM_BASE_URL"]).port
        assert port is not None
        yield Rig(upstream, stack, port)
