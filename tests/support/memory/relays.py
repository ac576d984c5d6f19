"""Answers that a relay passes on, with bytes at both ends."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from libs.common.headers import Header
from libs.common.providers.key_echoes import NO_KEY, SentKey
from services.gateway.capture.capture import Capture
from services.gateway.content.response_facts import Facts
from services.gateway.proxy.relay import Relay, at_once
from services.gateway.server.connection import Connection
from services.gateway.server.request import Request
from services.gateway.upstream.errors import UpstreamError
from services.gateway.upstream.response import Answer
from tests.support.memory.clock import settled
from tests.support.memory.sites import OpenSite
from tests.support.memory.transports import Wire

EVENTS: Header = (b"content-type", b"text/event-stream; charset=utf-8")


JSON: Header = (b"content-type", b"application/json")


def event(kind: str, **more: Any) -> bytes:
    data = json.dumps({"type": kind} | more).encode()
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


CREATED = event(
    "response.created",
    sequence_number=0,
    response={"id": "resp_1", "object": "response", "model": "m", "output": []},
)


DELTA = event("response.output_text.delta", delta="hello")


COMPLETED = event(
    "response.completed",
    response={
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "model": "m-2026",
        "output": [{"id": "msg_1"}],
        "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
    },
)


STREAM = CREATED + DELTA + DELTA + COMPLETED


class Source:
    """The upstream's connection."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.said: list[str] = []

    def pause_reading(self) -> None:
        self.said.append("rest")

    def resume_reading(self) -> None:
        self.said.append("read on")

    def abort(self) -> None:
        self.said.append("abort")

    def end_within(self, seconds: float) -> None:
        self.said.append("end soon")


class Talk(OpenSite):
    """A client that asked, and an upstream's answer that is relayed to it."""

    def __init__(
        self,
        *headers: Header,
        status: int = 200,
        capture: Capture | None = None,
        run: Callable[[Iterator[None]], Awaitable[None]] = at_once,
        sent: SentKey = NO_KEY,
    ) -> None:
        super().__init__()
        self.source = Source()
        self.answer = Answer(self.source, status, list(headers))
        self.ends: list[bytes] = []  # what was sent when all was known
        self.raised: Exception | None = None
        self.connection = Connection(self, asyncio.get_running_loop())
        self.wire = Wire(self.connection)
        self.relay = Relay(self.answer, self.connection, capture, sent, run)
        self.wire.feed(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")

    async def serve(self, request: Request, connection: Connection) -> None:
        try:
            rest = self.relay.start(b"x-proxy-reason: r\r\n")
            if rest is not None:
                await rest
            self.ends.append(self.wire.sent)
            self.relay.finish()
            await self.relay.rest()
        except Exception as error:  # noqa: BLE001 - a test looks at it
            self.raised = error
        self.relay.close()
        connection.over()

    @property
    def body(self) -> bytes:
        """What the client got, unframed."""
        body, rest = b"", self.wire.sent.partition(b"\r\n\r\n")[2]
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            body += rest[: int(size, 16)]
            rest = rest[int(size, 16) + 2 :]
        return body


async def relayed(
    pieces: list[bytes], *headers: Header, end: UpstreamError | None = None
) -> Talk:
    talk = Talk(*headers)
    await settled()
    for piece in pieces:
        talk.answer.feed(piece, last=False)
    if end is None:
        talk.answer.feed(b"", last=True)
    else:
        talk.answer.fail(end)
    await settled()
    return talk


FACTS = Facts(
    response_id="resp_1",
    model="m-2026",
    input_tokens=3,
    output_tokens=4,
    total_tokens=7,
    minted=("resp_1", "msg_1"),
)


ANSWER = (
    b'{"id":"resp_1","object":"response","status":"completed","model":"m-2026",'
    b'"output":[{"id":"msg_1"}],'
    b'"usage":{"input_tokens":3,"output_tokens":4,"total_tokens":7}}'
)
