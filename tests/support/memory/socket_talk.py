"""A client's WebSocket through a gateway in memory to an upstream, with bytes at both
ends."""

import asyncio
import json
from typing import Any, cast

from websockets.frames import Opcode

from libs.common.headers import Header
from services.gateway.server.body_memory import Room
from services.gateway.server.request import Request
from services.gateway.upstream.connector import Dialer
from services.gateway.websocket.handler import SocketPlane
from services.gateway.websocket.upstream import Opener
from tests.support.clients.websocket_peer import Peer, Upstream
from tests.support.memory.clock import settled
from tests.support.memory.plane import World
from tests.support.memory.transports import Wire


class Sockets:
    """The WebSocket handler of a world, and its clients."""

    def __init__(self, world: World) -> None:
        self.world = world
        opener = Opener(cast(Dialer, world.wires), 3.0)
        self.plane = SocketPlane(
            world.context, world.limits, world.plane.attempts, opener, Room(1 << 24)
        )
        self._upstreams: dict[int, Upstream] = {}

    def upstream(self, number: int = -1) -> Upstream:
        """Upstream connections in the order in which they were dialed."""
        number %= len(self.world.upstreams)
        if number not in self._upstreams:
            self._upstreams[number] = Upstream(self.world.upstreams[number])
        return self._upstreams[number]

    async def asks(self, *headers: Header, request: Request | None = None) -> "Talk":
        """Send a client's upgrade; returns when nothing more can run."""
        talk = Talk(self, *headers, request=request)
        await settled()
        return talk

    async def opened(self, *headers: Header, **answer: str) -> "Talk":
        """The same, accepted by the chosen upstream."""
        talk = await self.asks(*headers)
        self.upstream().accepts(**answer)
        await settled()
        talk.hears()
        return talk


class Talk:
    """A client of a WebSocket."""

    def __init__(
        self, sockets: Sockets, *headers: Header, request: Request | None = None
    ) -> None:
        self.peer = Peer()
        self.wire = Wire()
        self.wire.pause_reading()
        made = self.peer.request(*headers)
        self.task = asyncio.create_task(
            sockets.plane.serve(request or made, self.wire, b"")
        )

    async def says(self, event: dict[str, Any] | str | bytes) -> None:
        if isinstance(event, bytes):
            self.peer.protocol.send_binary(event)
        else:
            text = event if isinstance(event, str) else json.dumps(event)
            self.peer.protocol.send_text(text.encode())
        self.wire.feed(self.peer.sends())
        await settled()

    async def creates(self, **more: Any) -> None:
        """Send `response.create`."""
        await self.says({"type": "response.create"} | more)

    async def closes(self) -> None:
        self.peer.hears(self.wire.take())
        self.peer.protocol.send_close(1000)
        self.wire.feed(self.peer.sends())
        await settled()

    def hears(self) -> list[Any]:
        """The content of messages received since the last call."""
        return [
            json.loads(bytes(frame.data))
            if frame.opcode is Opcode.TEXT
            else bytes(frame.data)
            for frame in self.peer.hears(self.wire.take())
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY)
        ]

    @property
    def refusal(self) -> tuple[int, str | None]:
        """Status and code of a refused upgrade."""
        head, _, body = self.wire.sent.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), json.loads(body)["error"]["code"]

    @property
    def close_code(self) -> int | None:
        received = self.peer.protocol.close_rcvd
        return received.code if received else None

    async def ended(self) -> None:
        """Waits for the end however long it takes: the clock is virtual."""
        await asyncio.wait([self.task])
