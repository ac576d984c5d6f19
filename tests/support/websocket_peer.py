"""The other end of a WebSocket, sans IO: what it would send, what it understood."""

from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.http11 import Response
from websockets.uri import parse_uri

from libs.common.headers import Header
from services.gateway.requests import Request


class Peer:
    """A client of a socket. Calls of `protocol` make bytes that `sends` gives."""

    def __init__(self) -> None:
        self.protocol = ClientProtocol(parse_uri("ws://gateway/v1/responses"))
        self._upgrade = self.protocol.connect()
        self.answer: Response | None = None
        self.frames: list[Frame] = []

    def request(self, *more: Header) -> Request:
        """Its upgrade, as the gateway's connection hands it on."""
        headers = [
            (name.lower().encode(), value.encode())
            for name, value in self._upgrade.headers.raw_items()
        ]
        self.protocol.send_request(self._upgrade)
        self.protocol.data_to_send()
        return Request("GET", b"/v1/responses", [*headers, *more])

    def sends(self) -> bytes:
        """What it wrote since the last call."""
        return b"".join(self.protocol.data_to_send())

    def hears(self, data: bytes) -> list[Frame]:
        """Takes what the gateway wrote; the frames in it."""
        self.protocol.receive_data(data)
        frames = []
        for event in self.protocol.events_received():
            if isinstance(event, Response):
                self.answer = event
            elif isinstance(event, Frame):
                frames.append(event)
        self.frames += frames
        return frames
