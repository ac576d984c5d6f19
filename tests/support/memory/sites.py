"""The owner of a test's connections."""

import asyncio

from services.gateway.server.body_memory import SMALL, Room
from services.gateway.server.connection import ClientTimeouts, Connection
from services.gateway.server.request import Request


class OpenSite:
    """Accepts every connection; a test's own class serves them."""

    def __init__(
        self, largest_body: int = 1000, timeouts: ClientTimeouts | None = None
    ) -> None:
        self.largest_body = largest_body
        self.small_body = min(SMALL, largest_body)
        self.room = Room(largest_body)
        self.timeouts = timeouts or ClientTimeouts()
        self.draining = False

    def admit(self, connection: Connection) -> bool:
        return True

    def left(self, connection: Connection) -> None:
        pass

    def upgrade(
        self, request: Request, transport: asyncio.Transport, rest: bytes
    ) -> None:
        raise AssertionError("nobody asked for it")
