"""What HTTP requests use."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final

from services.gateway.auth.access_control import AccessControl
from services.gateway.content.body_reader import Reader
from services.gateway.proxy.attempts import Attempts
from services.gateway.proxy.in_flight import InFlight
from services.gateway.routing.selector import Selector
from services.gateway.upstream.client import UpstreamClient


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may take."""

    body_bytes: int
    attempts: int
    request_s: float
    pause_ms: int = 30_000  # a resource's cooldown when its upstream names no time
    replays: bool = False  # PROXY_REPLAY_WITHOUT_REASONING


@dataclass(frozen=True, slots=True)
class HttpServices:
    """What HTTP requests use, for all requests of a gateway."""

    limits: Limits
    access: AccessControl
    selector: Selector
    in_flight: InFlight
    upstream: UpstreamClient
    reader: Reader
    attempts: Attempts
    now: Callable[[], float]  # of the event loop
    # Is a release not written to Redis yet? If so, calls what it gets when it is.
    when_sent: Callable[[Callable[[], None]], bool]


class _NextTurn:
    """Awaited, lets the event loop go on: `asyncio.sleep(0)`, which takes two frames of
    the interpreter."""

    def __await__(self) -> Generator[None, None, None]:
        yield


def nothing() -> None:
    """For `when_sent`, of who only asks."""


NEXT_TURN: Final = _NextTurn()
