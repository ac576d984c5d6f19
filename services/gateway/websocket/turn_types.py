"""The types of turns.py."""

from dataclasses import dataclass

from services.gateway.auth.access_control import AccessControl
from services.gateway.capture.recorder import Capture
from services.gateway.content.body_reader import Reader
from services.gateway.errors import Problem
from services.gateway.proxy.in_flight import InFlight
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.routing.selector import Selector
from services.gateway.websocket.frames import Message
from services.gateway.websocket.leases import SocketLeases


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

    life: Lifecycle
    lane: str | None
    deadline: float  # of the event loop's clock
    frame: Message  # as it goes upstream
    capture: Capture | None
    created: bytes = b""  # the event that names the response
    answered: bool = False


class NotAdmitted(Exception):
    """A frame that is refused; the socket goes on."""

    def __init__(self, problem: Problem, lane: str | None) -> None:
        self.problem = problem
        self.lane = lane
        super().__init__()
