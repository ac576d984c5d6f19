"""What clients send, and the settings of the gateway that reads it."""

from tests.support.clients.raw import calling
from tests.support.processes.stack import Stack

LARGEST_BODY = 2_000_000
ASK = b'{"model":"gpt-5.5","input":"hi"}'
HEAD = b"POST /v1/responses HTTP/1.1\r\nhost: proxy\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
SETTINGS = {
    # Long enough that no other client times out on a busy machine.
    "PROXY_HEAD_TIMEOUT_SECONDS": "1",
    "PROXY_BODY_TIMEOUT_SECONDS": "1",
    "PROXY_KEEP_ALIVE_SECONDS": "1",
    "PROXY_MAX_BODY_BYTES": str(LARGEST_BODY),
    "PROXY_REQUEST_TIMEOUT_SECONDS": "2",
}


async def told(stack: Stack, data: bytes) -> tuple[int, str]:
    """Status and code of the only answer to `data`, after which the connection
    closes."""
    async with calling(stack.origin) as caller:
        await caller.send(data)
        reply = await caller.reply()
        assert reply.headers["connection"] == "close"
        assert await caller.closed() == b""
        return reply.status, reply.code
