"""Requests of a world in memory, and what becomes of them."""

from typing import Any

from libs.common.headers import Header
from tests.support.memory.clock import clock, settled
from tests.support.memory.plane import SECRET, Client, World
from tests.support.memory.transports import Wire

KEY: Header = (b"authorization", b"Bearer " + SECRET.encode())
CREATED = (
    b'event: response.created\ndata: {"type":"response.created",'
    b'"response":{"id":"resp_1","object":"response"}}\n\n'
)


COMPLETED = (
    b'event: response.completed\ndata: {"type":"response.completed",'
    b'"response":{"id":"resp_1","object":"response","status":"completed",'
    b'"usage":{"input_tokens":1,"output_tokens":2,"total_tokens":3}}}\n\n'
)


STREAMING = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


async def asked(world: World, *args: Any, **more: Any) -> tuple[Client, Wire]:
    """A request that reached an upstream."""
    client = world.client()
    await client.asks(*args, **more)
    return client, world.upstreams[-1]


async def one_row(world: World) -> dict[str, Any]:
    await settled()
    world.is_at_rest()
    (row,) = world.requests
    return row


async def clock_passes(client: Client) -> None:
    while not client.wire.sent:
        clock().advance(0.1)
        await settled()
