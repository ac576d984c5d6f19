"""The calls that each request makes, acquire and release: their forms (`packing.py`),
and what they are made of."""

from typing import Any, Final

import msgspec

from libs.common.contracts.decision_head import (
    DecisionHead,
    LaterHead,
    LaterWaitedHead,
    WaitedHead,
)
from libs.common.redis.keys import Keys
from libs.common.redis.packing import SIZE, Form, Pieces
from libs.common.routing.control import now_ms
from libs.common.routing.types import OTHERS, Ask


def _acquire(command: tuple[Any, ...], pieces: Pieces) -> bytes | None:
    _, pattern, request, decision, session, draw, head, lease, tokens, *more = command
    a, b, c, d, e, f, g, h = pieces
    size = SIZE
    begin = (
        f"*{size[len(pattern) + len(more)]}{a}{size[len(request)]}{request}"
        f"{b}{size[len(decision)]}{decision}{c}{size[len(session)]}{session}"
        f"{d}{size[len(draw)]}{draw}{e}{len(head)}\r\n"
    )
    between = f"{f}{len(lease)}\r\n"
    end = f"{g}{size[len(tokens)]}{tokens}{h}"
    for each in more:
        end += f"${len(each)}\r\n{each}\r\n"
    if begin.isascii() and end.isascii():
        return b"".join((begin.encode(), head, between.encode(), lease, end.encode()))
    return None


def _release(command: tuple[Any, ...], pieces: Pieces) -> bytes | None:
    _, pattern, request, latency_ms, session, event, limits, *learned = command
    a, b, c, d, e, f = pieces
    size = SIZE
    begin = (
        f"*{size[len(pattern) + len(learned)]}{a}{size[len(request)]}{request}"
        f"{b}{size[len(latency_ms)]}{latency_ms}{c}{size[len(session)]}{session}"
        f"{d}{len(event)}\r\n"
    )
    end = f"{e}{size[len(limits)]}{limits}{f}"
    for each in learned:
        end += f"${size[len(each)]}{each}\r\n"
    if begin.isascii() and end.isascii():
        return b"".join((begin.encode(), event, end.encode()))
    return None


ACQUIRE: Final = Form(_acquire)
RELEASE: Final = Form(_release)
# release_v5 takes what a request used as one number, which Lua holds exactly:
# `nanos * MOST_TOKENS + tokens`, up to 2^53.
MOST_TOKENS: Final = 2**20
MOST_NANOS: Final = 2**33


class Names:
    """The functions that requests call, as a stack's library names them. `..._counted`:
    for requests of keys with limits."""

    def __init__(self, keys: Keys) -> None:
        self.acquire = keys.function("acquire_v4")
        self.acquire_counted = keys.function("acquire_v5")
        self._queue = keys.function("queue_v1")
        self._queue_counted = keys.function("queue_v2")
        self._pin = keys.function("pin_v4")
        self._pin_counted = keys.function("pin_v5")
        self._target = keys.function("target_v1")
        self._target_counted = keys.function("target_v2")
        self.leave = keys.function("leave_v1")
        self.release = keys.function("release_v3")
        self.release_counted = keys.function("release_v4")
        self.release_known = keys.function("release_v5")

    def of(self, ask: Ask) -> str:
        """The function for a request that waits, that is on a WebSocket, that has other
        targets of its alias, or whose key has limits."""
        others = OTHERS in ask.turn
        if ask.quota is not None:
            if ask.place is not None:
                return self._queue_counted
            if not ask.socket and not ask.turn:
                return self.acquire_counted
            return self._target_counted if others else self._pin_counted
        if ask.place is not None:
            return self._queue
        return self._target if others else self._pin


def further_of(ask: Ask) -> tuple[str, ...]:
    """The arguments of acquire that most requests do not have."""
    place, further = ask.place, ask.asker.further
    ids = *ask.bound, *further, *ask.tried
    if place is not None:
        waits = place.share, str(place.weight), str(place.left_ms)
        return *waits, ask.socket, ask.turn, *ids
    return (ask.socket, ask.turn, *ids) if ask.socket or ask.turn else ids


def ids_of(ask: Ask) -> tuple[Any, ...]:
    """The arguments of check about the ids of a request."""
    asker = ask.asker
    return (
        1 if ask.resolved else 0,
        asker.tenant,
        1 if asker.strict else 0,
        asker.kinds,
        *ask.bound,
        *asker.further,
    )


_encode: Final = msgspec.json.Encoder().encode


def decision_head(ask: Ask, now: int | str) -> bytes:
    """The decision event (JSON) without its closing brace: the function adds the
    resource and the reason."""
    made = ask.request_id, ask.attempt, now or now_ms(), ask.session_id, ask.pool_id
    if ask.waited_ms is not None:
        waited = ask.waited_ms
        if ask.cause:
            return _encode(LaterWaitedHead(*made, ask.cause, waited))[:-1]
        return _encode(WaitedHead(*made, waited))[:-1]
    if ask.cause:
        return _encode(LaterHead(*made, ask.cause))[:-1]
    return _encode(DecisionHead(*made))[:-1]
