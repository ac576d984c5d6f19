"""Sends answers, or breaks the connection where a fault says so."""

import asyncio
import gzip
import socket
import struct
import zlib
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from libs.simulator.faults.faults import Fault
from libs.simulator.state.journal import Entry
from libs.simulator.wire import Answer, Plain, Stream, encode

_GARBAGE = b"\x16\x03\x01 this is no HTTP \x00\xff\r\n\r\n"
_MISSING_BYTES = 64
_GZIP = {"content-encoding": "gzip", "vary": "accept-encoding"}
_GZIP_WBITS = 31  # zlib's number for the gzip format
_SSE = "text/event-stream; charset=utf-8"


def reset(request: web.BaseRequest) -> None:
    """Close the TCP connection with a reset."""
    transport = request.transport
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    linger = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


async def until_client_leaves() -> None:
    """Wait forever: the server cancels a handler whose client has disconnected."""
    await asyncio.Event().wait()


@dataclass(frozen=True)
class Exchange:
    """One HTTP request and how it is answered."""

    request: web.Request
    entry: Entry
    fault: Fault
    headers: dict[str, str]

    async def broken(self) -> web.StreamResponse | None:
        """Break the connection before any answer, if the fault asks for it."""
        fault, transport = self.fault, self.request.transport
        if fault.timeout is True:
            await until_client_leaves()
        elif fault.timeout:
            await asyncio.sleep(fault.timeout)
        if fault.garbage and transport is not None:
            transport.write(_GARBAGE)
            self.entry.sent(_GARBAGE)
            transport.close()
            return _nothing_more()
        if fault.reset or fault.timeout:
            reset(self.request)
            return _nothing_more()
        return None

    async def send(self, answer: Answer) -> web.StreamResponse:
        self.entry.response_id = answer.response_id
        if self.fault.delay_ms:
            await asyncio.sleep(self.fault.delay_ms / 1000)
        if isinstance(answer, Stream):
            return await self._stream(answer)
        return await self._plain(answer)

    async def _plain(self, answer: Plain) -> web.StreamResponse:
        answer.commit()
        headers = self._headers(answer.content_type) | dict(answer.headers)
        body = answer.body
        if self._compresses:
            body = gzip.compress(body)
            headers |= _GZIP
        self.entry.sent(body)
        if self.fault.wrong_length:
            return await self._cut_short(answer.status, headers, body)
        response = web.Response(status=answer.status, body=body, headers=headers)
        self.entry.answered(answer.status, response.headers.items())
        return response

    async def _cut_short(
        self, status: int, headers: dict[str, str], body: bytes
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = len(body) + _MISSING_BYTES
        self.entry.answered(status, response.headers.items())
        await response.prepare(self.request)
        await response.write(body)
        if self.request.transport is not None:
            self.request.transport.close()
        return response

    async def _stream(self, answer: Stream) -> web.StreamResponse:
        pack = zlib.compressobj(wbits=_GZIP_WBITS) if self._compresses else None
        headers = self._headers(_SSE) | (_GZIP if pack else {})
        response = web.StreamResponse(headers=headers)
        self.entry.answered(200, response.headers.items())
        await response.prepare(self.request)
        sent = 0
        # Do not fetch a frame before it may be sent: fetching the last one stores the
        # response.
        while not await self._ends_after(sent):
            frame = await anext(answer.frames, None)
            if frame is None:
                if pack:
                    await response.write(pack.flush())
                break
            self.entry.sent(frame)
            if pack:
                # Each event can be decompressed as soon as it arrives.
                frame = pack.compress(frame) + pack.flush(zlib.Z_SYNC_FLUSH)
            await response.write(frame)
            sent += 1
        return response

    async def _ends_after(self, sent: int) -> bool:
        fault = self.fault
        if sent and fault.event_gap_ms:
            await asyncio.sleep(fault.event_gap_ms / 1000)
        if fault.stall_after == sent:
            await until_client_leaves()
        if fault.cut == sent:
            reset(self.request)
            return True
        return fault.end_after == sent

    @property
    def _compresses(self) -> bool:
        accepted = self.request.headers.get("accept-encoding", "")
        return self.fault.compress and "gzip" in accepted

    def _headers(self, content_type: str) -> dict[str, str]:
        return {**self.headers, "content-type": content_type, **self.fault.headers}


def _nothing_more() -> web.StreamResponse:
    """aiohttp requires a return value although the connection is closed."""
    return web.Response()


def scripted_body(fault: Fault, usual: Any) -> tuple[bytes, str]:
    """The body of a status fault and its content type."""
    body = fault.body
    if body is None:
        return encode(usual), "application/json"
    if isinstance(body, str):
        html = body.lstrip().startswith("<")
        return body.encode(), "text/html" if html else "application/json"
    return encode(body), "application/json"
