"""WebSocket frames byte for byte (RFC 6455), for hand-written clients and upstreams."""

import asyncio
import os
import re
import struct

from websockets.utils import accept_key

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
UPGRADE = (
    b"connection: Upgrade",
    b"upgrade: websocket",
    b"sec-websocket-version: 13",
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
)


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True
) -> bytes:
    head = bytes([opcode | (0x80 if fin else 0)])
    mask = os.urandom(4) if masked else b""
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 65_536:
        head += bytes([bit | 126]) + struct.pack(">H", len(payload))
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", len(payload))
    return head + mask + (_xor(payload, mask) if masked else payload)


def _xor(payload: bytes, mask: bytes) -> bytes:
    stream = (mask * (len(payload) // 4 + 1))[: len(payload)]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")
    return number.to_bytes(len(payload), "big")


def switching(head: bytes, lines: bytes = b"") -> bytes:
    """The answer to an upgrade, given the request's head."""
    key = re.search(rb"(?i)\r\nsec-websocket-key: (\S+)", head)
    assert key is not None
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\n"
        b"upgrade: websocket\r\nsec-websocket-accept: %b\r\n%b\r\n"
        % (accept_key(key[1].decode()).encode(), lines)
    )


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read a frame of either side: opcode and payload."""
    first, length = await reader.readexactly(2)
    masked, length = length & 0x80, length & 0x7F
    if length == 126:
        (length,) = struct.unpack(">H", await reader.readexactly(2))
    elif length == 127:
        (length,) = struct.unpack(">Q", await reader.readexactly(8))
    mask = await reader.readexactly(4) if masked else b""
    payload = await reader.readexactly(length)
    return first & 0x0F, _xor(payload, mask) if masked else payload
