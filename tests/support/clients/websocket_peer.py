"""The remote ends of WebSockets, sans IO."""

import json
from typing import Any

from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request as Upgrade
from websockets.http11 import Response
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from libs.common.headers import Header
from services.gateway.server.request import Request
from tests.support.memory.transports import Wire


class Peer:
    """A socket's client. Calls of `protocol` make bytes that `sends` returns."""

    def __init__(self) -> None:
        self.protocol = ClientProtocol(parse_uri("ws://gateway/v1/responses"))
        self._upgrade = self.protocol.connect()
        self.answer: Response | None = None
        self.frames: list[Frame] = []

    def request(self, *more: Header) -> Request:
        """The upgrade request, as the gateway's connection passes it on."""
        headers = [
            (name.lower().encode(), value.encode())
            for name, value in self._upgrade.headers.raw_items()
        ]
        self.protocol.send_request(self._upgrade)
        self.protocol.data_to_send()
        return Request("GET", b"/v1/responses", [*headers, *more])

    def sends(self) -> bytes:
        """Bytes written since the last call."""
        return b"".join(self.protocol.data_to_send())

    def hears(self, data: bytes) -> list[Frame]:
        """Feed bytes from the gateway; returns the frames in them."""
        self.protocol.receive_data(data)
        frames = []
        for event in self.protocol.events_received():
            if isinstance(event, Response):
                self.answer = event
            elif isinstance(event, Frame):
                frames.append(event)
        self.frames += frames
        return frames


class Upstream:
    """The upstream's end of a socket, on the wire that was dialed."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.protocol = ServerProtocol(max_size=None)
        self.frames: list[Frame] = []
        self.hears()

    @property
    def upgrade(self) -> Upgrade:
        assert self._upgrade is not None
        return self._upgrade

    _upgrade: Upgrade | None = None

    def hears(self) -> list[Any]:
        """The content of messages received since the last call."""
        self.protocol.receive_data(self.wire.take())
        news: list[Any] = []
        for event in self.protocol.events_received():
            if isinstance(event, Upgrade):
                self._upgrade = event
            elif isinstance(event, Frame):
                self.frames.append(event)
                if event.opcode is Opcode.TEXT:
                    news.append(json.loads(bytes(event.data)))
                elif event.opcode is Opcode.BINARY:
                    news.append(bytes(event.data))
        self._flush()
        return news

    def accepts(self, **headers: str) -> None:
        response = self.protocol.accept(self.upgrade)
        for name, value in headers.items():
            response.headers[name.replace("_", "-")] = value
        self.protocol.send_response(response)
        self._flush()

    def refuses(self, status: int, body: bytes = b"", **headers: str) -> None:
        given = Headers({n.replace("_", "-"): v for n, v in headers.items()})
        given["content-length"] = str(len(body))
        self.protocol.send_response(Response(status, "X", given, body))
        self._flush()

    def says(self, event: dict[str, Any]) -> None:
        self.protocol.send_text(json.dumps(event).encode())
        self._flush()

    def closes(self, code: int | None = 1000, reason: str = "") -> None:
        self.protocol.send_close(code, reason)
        self._flush()

    @property
    def close_code(self) -> int | None:
        """The close code that the gateway sent."""
        self.hears()
        received = self.protocol.close_rcvd
        return received.code if received else None

    def _flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self.wire.feed(data)
            else:
                self.wire.hangs_up()
