"""The retry loop of HTTP requests and WebSocket upgrades: acquire a lease, try its
resource, go elsewhere when that fails."""

import random
from collections.abc import Awaitable, Callable

import uuid_utils

from libs.common.bodies.strip_reasoning import without_reasoning
from libs.common.routing.types import Ask, ForeignId, OwnerGone, Refusal
from services.gateway.content.body_reader import Reader
from services.gateway.content.request_coding import Unopened
from services.gateway.errors import Problem
from services.gateway.proxy.in_flight import InFlight
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.proxy.steps import ACQUIRE, ADMITTED, Next
from services.gateway.routing.catalogue import Target
from services.gateway.routing.selector import Selector, problem_of

# Tries a resource. It ends in the phase ADMITTED when the attempt failed.
Attempt = Callable[[Lifecycle, Target], Awaitable[Next]]


class Attempts:
    """Runs the attempts of requests."""

    def __init__(
        self,
        selector: Selector,
        in_flight: InFlight,
        reader: Reader,
        most: int,
        *,
        replays: bool = False,
    ) -> None:
        """`most`: attempts of a request. `replays`: rewrite requests for another
        account when theirs is gone (PROXY_REPLAY_WITHOUT_REASONING)."""
        self._selector = selector
        self._in_flight = in_flight
        self._reader = reader
        self._most = most
        self._replays = replays
        self._draw: Callable[[int], int] = random.getrandbits

    def ask(self, life: Lifecycle) -> Ask:
        """What routing is asked for the next attempt."""
        number = life.record.attempts + 1
        return life.ask(number, str(uuid_utils.uuid7()), self._draw(31))

    async def run(
        self, life: Lifecycle, attempt: Attempt, most: int | None = None
    ) -> Next:
        """Try resources until one serves. Returns DONE when one did, else the client
        gets `life.problem` or else `life.failure`."""
        selector, offline = self._selector, self._in_flight.offline
        record = life.record
        number = first = record.attempts + 1
        ends = first + (self._most if most is None else most)
        while number < ends:
            # Written out here: each coroutine more is resumed at each await.
            ask = life.ask(number, str(uuid_utils.uuid7()), self._draw(31))
            try:
                decision = await selector.decide(ask, life.ids)
                target = selector.known(decision) or await selector.find(decision)
            except (Refusal, Problem) as refusal:
                if isinstance(refusal, OwnerGone) and await self._rewritten(life):
                    continue
                problem = _problem(life, ask, refusal)
                return life.refused(problem, first=number == first)
            resource = target.resource
            life.acquired(decision, resource.account_id, number)
            offline.began(record.gateway_id, record.id, resource.id)
            try:
                step = await attempt(life, target)
            finally:
                offline.ended(record.gateway_id, record.id, resource.id)
            if life.phase is ADMITTED:
                self._in_flight.attempt_failed(life)
            if step is Next.REWRITE and await self._rewritten_here(life):
                step = ACQUIRE
            if step is not ACQUIRE:
                return step
            number += 1
        return Next.ANSWER

    async def _rewritten_here(self, life: Lifecycle) -> bool:
        """A history that another account served before still carries the reasoning of
        the first account; the account that serves it now rejects that. It can read the
        rest."""
        rewritten = await self._rewritten(life)
        if rewritten:
            life.readable_again()
        return rewritten

    async def _rewritten(self, life: Lifecycle) -> bool:
        """Rewrite a request that only its account can read, if that is allowed. Frames
        of sockets are sent as they came."""
        socket = life.record.transport == "ws"
        if not self._replays or not life.account_bound or socket:
            return False
        try:
            plain = await self._reader.opened(life.body, life.request.coding)
        except Unopened:
            return False
        body = without_reasoning(plain)
        if body is not None:
            life.unbind(body)
        return body is not None


def _problem(life: Lifecycle, ask: Ask, refusal: Refusal | Problem) -> Problem:
    """What the client is told when no resource may serve its request."""
    if isinstance(refusal, Problem):
        return refusal
    if isinstance(refusal, ForeignId):
        return life.foreign(refusal)
    return problem_of(refusal, ask, life.record.method)
