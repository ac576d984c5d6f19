"""The types of turns.py."""

import asyncio
from dataclasses import dataclass, field

from services.gateway.auth.access_control import AccessControl
from services.gateway.capture.capture import Capture
from services.gateway.content.body_reader import Reader
from services.gateway.errors import Problem, error_frame
from services.gateway.proxy.in_flight import InFlight
from services.gateway.proxy.steps import SENT
from services.gateway.proxy.turn_lifecycle import TurnLifecycle
from services.gateway.routing.selector import Selector
from services.gateway.websocket.frames import Message
from services.gateway.websocket.leases import SocketLeases
from services.gateway.websocket.upstream import Opened


@dataclass(frozen=True, slots=True)
class TurnContext:
    """What turns need, on all sockets of this gateway."""

    access: AccessControl
    leases: SocketLeases
    in_flight: InFlight
    request_s: float
    selector: Selector
    reader: Reader


@dataclass(slots=True, eq=False)
class Turn:
    """A request under way on a socket."""

    life: TurnLifecycle
    lane: str | None
    deadline: float  # of the event loop's clock
    frame: Message  # as it goes upstream
    capture: Capture | None
    unstored: bool = False  # the frame has `store: false`
    upstream: Opened | None = None  # the socket that serves it
    created: bytes = b""  # the event that names the response
    answered: bool = False
    shown: bool = False  # the client has an event of its response
    held: list[Message] = field(default_factory=list)  # events before its output
    over: asyncio.Event | None = None  # set at its end, if a turn waits for that

    def send_body(self) -> None:
        """Its frame is the request's body, which was rewritten."""
        body = self.life.body
        self.frame = body.decode() if isinstance(self.frame, str) else body

    def runs_on(self, upstream: Opened) -> bool:
        """Was its frame sent to this socket?"""
        return self.upstream is upstream and self.life.phase is SENT


class NotAdmitted(Exception):
    """A frame that is refused, or a turn that nobody can serve; the socket goes on."""

    def __init__(self, problem: Problem, lane: str | None) -> None:
        self.problem = problem
        self.lane = lane
        super().__init__()

    @property
    def frame(self) -> Message:
        """What the client is told."""
        return error_frame(self.problem, self.lane)


class Failed(NotAdmitted):
    """A turn that ends with an error of the upstream."""

    def __init__(self, frame: Message) -> None:
        self._frame = frame
        Exception.__init__(self)

    @property
    def frame(self) -> Message:
        return self._frame
