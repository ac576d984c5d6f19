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
from libs.common.redis.packing import GAP, SIZE, Form, Pattern, Pieces, size_of
from libs.common.routing.control import now_ms
from libs.common.routing.types import OTHERS, Ask, model_digest

# Compiled, a part of a tuple taken by its index costs a tenth of one with `*more`.


def _acquire(command: tuple[Any, ...], number: int, pieces: Pieces) -> bytes:
    request_id: str = command[2]
    decision_id: str = command[3]
    digest: str = command[4]
    drawn: str = command[5]
    head: bytes = command[6]
    lease: bytes = command[7]
    estimated: str = command[8]
    request, decision = request_id.encode(), decision_id.encode()
    session, draw, tokens = digest.encode(), drawn.encode(), estimated.encode()
    a, b, c, d, e, f, g, h = pieces
    size, count = SIZE, number + len(command) - 9
    further = b"" if len(command) == 9 else _further(command, 9)
    # Compiled, this takes half as long as joining a list.
    return b"*%b%b%b%b" b"%b%b%b%b%b%b" b"%b%b%b%b%b%b" b"%b%b%b%b%b%b%b%b" % (
        size[count], a, size[len(request)], request,
        b, size[len(decision)], decision, c, size[len(session)], session,
        d, size[len(draw)], draw, e, size_of(head), head,
        f, size_of(lease), lease, g, size[len(tokens)], tokens, h, further,
    )  # fmt: skip


def _release(command: tuple[Any, ...], number: int, pieces: Pieces) -> bytes:
    request_id: str = command[2]
    ms: str = command[3]
    digest: str = command[4]
    event: bytes = command[5]
    told: str = command[6]
    request, latency_ms = request_id.encode(), ms.encode()
    session, limits = digest.encode(), told.encode()
    a, b, c, d, e, f = pieces
    size, count = SIZE, number + len(command) - 7
    further = b"" if len(command) == 7 else _further(command, 7)
    return b"*%b%b%b%b" b"%b%b%b%b%b%b" b"%b%b%b%b%b%b%b%b" % (
        size[count], a, size[len(request)], request,
        b, size[len(latency_ms)], latency_ms, c, size[len(session)], session,
        d, size_of(event), event, e, size[len(limits)], limits, f, further,
    )  # fmt: skip


def _further(command: tuple[Any, ...], start: int) -> bytes:
    """The arguments from `start` on, packed."""
    packed = b""
    for index in range(start, len(command)):
        text: str = command[index]
        argument = text.encode()
        packed = b"%b$%b%b\r\n" % (packed, size_of(argument), argument)
    return packed


def _acquire_pattern(key: Any) -> Pattern:
    """As functions/acquire.lua lists the arguments."""
    (
        name, version_key, stream, gateway_id, attempt, pool_id, model, bound, resolved,
        told, now, previous, ids, tenant, strict, kinds, terms,
    ) = key  # fmt: skip
    return (
        "FCALL", name, 2, version_key, stream, gateway_id, GAP, attempt, GAP, pool_id,
        GAP, model, bound, resolved, told, GAP, GAP, GAP, now, previous, ids, tenant,
        strict, kinds, GAP, terms,
    )  # fmt: skip


def _release_pattern(key: Any) -> Pattern:
    """As functions/release.lua lists the arguments."""
    (
        name, version_key, stream, gateway_id, resource_id, kind, cause, cooldown_ms,
        now, session_ttl_ms, id_ttl_ms, model, tenant, scope,
    ) = key  # fmt: skip
    return (
        "FCALL", name, 2, version_key, stream, gateway_id, GAP, resource_id, kind,
        cause, cooldown_ms, GAP, now, GAP, session_ttl_ms, id_ttl_ms,
        model_digest(model), model, GAP, tenant, scope, GAP,
    )  # fmt: skip


ACQUIRE: Final = Form(_acquire, _acquire_pattern)
RELEASE: Final = Form(_release, _release_pattern)
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
_Head: Final = DecisionHead  # found sooner than an imported name


def decision_head(ask: Ask, now: int | str) -> bytes:
    """The decision event (JSON) without its closing brace: the function adds the
    resource and the reason."""
    request, attempt, made = ask.request_id, ask.attempt, now or now_ms()
    session, pool, cause, waited = ask.session_id, ask.pool_id, ask.cause, ask.waited_ms
    head: DecisionHead
    if waited is None and not cause:
        head = _Head(request, attempt, made, session, pool)
    elif waited is None:
        head = LaterHead(request, attempt, made, session, pool, cause)
    elif cause:
        head = LaterWaitedHead(request, attempt, made, session, pool, cause, waited)
    else:
        head = WaitedHead(request, attempt, made, session, pool, waited)
    return _encode(head)[:-1]
