"""The retry loop of HTTP requests and WebSocket upgrades: acquire a lease, try its
resource, go elsewhere when that fails."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import getrandbits
from typing import Final

import uuid_utils

from libs.common.bodies.strip_reasoning import without_reasoning
from libs.common.contracts.events import Cause, Reason
from libs.common.routing.aliases import home_of, session_within
from libs.common.routing.types import (
    OTHERS,
    Ask,
    Busy,
    Decision,
    ForeignId,
    NoCapacity,
    OwnerGone,
    OwnerLimited,
    QuotaRefused,
    Refusal,
)
from services.gateway.content.body_reader import Reader
from services.gateway.content.request_coding import Unopened
from services.gateway.errors import Problem
from services.gateway.proxy.in_flight import InFlight
from services.gateway.proxy.lifecycle import UNDECIDED, Lifecycle
from services.gateway.proxy.retry import end_of_attempts
from services.gateway.proxy.steps import ACQUIRE, ADMITTED, Next
from services.gateway.routing.selector import FAILURES, Selector, problem_of
from services.gateway.routing.spend import problem_of_quota
from services.gateway.routing.target import Target
from services.gateway.routing.target_order import TargetOrder

_chance: Final = getrandbits  # found sooner than an imported name
_DIGITS: Final = [f"{byte:02x}" for byte in range(256)]
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
        self._draw: Callable[[int], int] = getrandbits

    def ask(self, life: Lifecycle) -> Ask:
        """What routing is asked for the next attempt."""
        number = life.record.attempts + 1
        return life.ask(number, str(uuid_utils.uuid7()), self._draw(31))

    async def run(  # noqa: C901 - each coroutine costs
        self, life: Lifecycle, attempt: Attempt, most: int | None = None
    ) -> Next:
        """Try resources until one serves. Returns DONE when one did, else the client
        gets `life.problem` or else `life.failure`."""
        selector, record, offline = self._selector, life.record, self._in_flight.offline
        number = first = record.attempts + 1
        most = self._most if most is None else most
        ends = first + most
        aliased = life.targets is not None
        if aliased:
            await self.locate(life)
            _leave_failed(life, most)
        ask: Ask | None = None
        while number < ends:
            ask = self._next_ask(life, number, ask)
            target: Target | None = None
            failure: Exception | None = None
            try:
                decision = await selector.asked(ask)
                target = selector.taken(ask, decision)
            except FAILURES as failed:
                failure, decision = failed, UNDECIDED  # no wait in a handler
            if target is None:
                one = number == first
                placed = await self._elsewhere(life, ask, decision, failure, first=one)
                failure = None  # it refers to this frame
                if placed is ACQUIRE:
                    continue
                if isinstance(placed, Next):
                    return placed
                decision, target = placed
            life.acquired(decision, target.account_id, number)
            self._in_flight.attempt_began(life, target)
            try:
                step = await attempt(life, target)
            finally:
                offline.ended(life.gateway_id, life.id, target.id)
            if life.phase is ADMITTED:
                self._in_flight.attempt_failed(life)
            if step is Next.REWRITE and await self.rewritten_here(life):
                step = ACQUIRE
            if step is not ACQUIRE:
                return step
            ends = end_of_attempts(ends, first, most, life.cause)
            number += 1
            if aliased:
                _leave_failed(life, ends - number)
        return Next.ANSWER

    def _next_ask(self, life: Lifecycle, number: int, last: Ask | None) -> Ask:
        if number == 1 and last is None:
            # Of the request's id, at half the cost. It counts up within a millisecond
            # in what is kept here, so ids of later decisions are larger.
            end, digits = _chance(32), _DIGITS
            new_id = (
                f"{life.id[:28]}{digits[end >> 24]}{digits[end >> 16 & 255]}"
                f"{digits[end >> 8 & 255]}{digits[end & 255]}"
            )
        else:
            new_id = str(uuid_utils.uuid7())
        ask = life.ask(number, new_id, self._draw(31))
        return ask if life.targets is None else _of_target(life, ask)

    async def _elsewhere(
        self,
        life: Lifecycle,
        ask: Ask,
        decision: Decision,
        failure: Exception | None,
        *,
        first: bool,
    ) -> tuple[Decision, Target] | Next:
        """The same as `_placed`, or the next step if that refused."""
        refusal: Exception | None = None
        try:
            return await self._placed(life, ask, decision, failure)
        except (Refusal, Problem) as refused:
            refusal = refused
        finally:
            failure = None  # it refers to this frame: a cycle
        try:
            return await self._refused(life, ask, refusal, first=first)
        finally:
            refusal = None  # the same

    async def _placed(
        self, life: Lifecycle, ask: Ask, decision: Decision, failure: Exception | None
    ) -> tuple[Decision, Target]:
        """What is rare: Redis failed to decide or refused, or decided by a catalogue
        that has to be read. Raises a `Refusal` or a `Problem`."""
        selector, busy = self._selector, None
        if failure is not None:
            try:
                decision = await selector.otherwise(ask, life.ids, failure)
            except Busy as found:
                busy = found
            finally:
                failure = None  # it refers to this frame: a cycle
        if busy is not None:
            try:
                decision = await self._queued(life, ask, busy)
            finally:
                busy = None  # the same
        target = selector.known(decision) or await selector.find(decision)
        return decision, target

    async def _queued(self, life: Lifecycle, ask: Ask, busy: Busy) -> Decision:
        """What could serve the request is at its limit: wait, if it may."""
        room = self._in_flight.room
        if busy.event or room is None:
            raise busy
        now = time.perf_counter()
        try:
            return await room.wait(ask, life.ids, life.place, now - life.began)
        finally:
            life.queued(time.perf_counter() - now)

    async def _refused(
        self, life: Lifecycle, ask: Ask, refusal: Exception | None, *, first: bool
    ) -> Next:
        """Routing has no resource. Returns ACQUIRE to ask again, for another target or
        a rewritten request."""
        assert isinstance(refusal, Refusal | Problem)
        if isinstance(refusal, QuotaRefused):
            return life.refused(_problem(life, ask, refusal), first=True)
        if life.targets is not None and _goes_on(life, refusal):
            return ACQUIRE
        refusal = _told(life, ask, refusal)
        if isinstance(refusal, OwnerGone) and await self._rewritten(life):
            if life.targets is not None:
                life.turn_to(life.targets.current)
            return ACQUIRE
        return life.refused(_problem(life, ask, refusal), first=first)

    async def locate(self, life: Lifecycle) -> None:
        """Begin with the target of the request's alias where its state is: what its
        ids name, or its session."""
        order = life.targets
        if order is None:
            return
        if not order.located:
            order.located = True
            await self._prefer_home(life, order)
        life.turn_to(order.current)

    async def _prefer_home(self, life: Lifecycle, order: TargetOrder) -> None:
        targets, session_id = order.targets, life.hints.session_id
        sessions = [
            session_within(session_id, target.pool, life.asker.tenant)
            for target in (targets if session_id and not order.on_socket else ())
        ]
        if sessions or life.bound:
            kept = await self._selector.kept(sessions, life.bound)
            count = len(sessions)
            home = home_of(targets, kept[count:], kept[:count])
            if home is not None:
                order.prefer(home)

    async def rewritten_here(self, life: Lifecycle) -> bool:
        """A history that another account served before still carries the reasoning of
        the first account; the account that serves it now rejects that. It can read the
        rest."""
        rewritten = await self._rewritten(life)
        if rewritten:
            life.readable_again()
        return rewritten

    async def _rewritten(self, life: Lifecycle) -> bool:
        """Rewrite a request that only its account can read, if that is allowed."""
        if not self._replays or not life.account_bound:
            return False
        # The body of a model alias was opened to replace the name.
        coding = life.request.coding if life.alias is None else None
        try:
            plain = await self._reader.opened(life.body, coding)
        except Unopened:
            return False
        body = without_reasoning(plain)
        if body is not None:
            life.unbind(body)
        return body is not None


def _of_target(life: Lifecycle, ask: Ask) -> Ask:
    """What is asked for a target of an alias: another one may serve instead."""
    order = life.targets
    if order is None or order.last_resort:
        return ask
    return replace(ask, turn=ask.turn + OTHERS)


def _goes_on(life: Lifecycle, refusal: Exception) -> bool:
    """Routing refused a target. Is another one asked instead?"""
    order = life.targets
    bound = life.decision.reason == Reason.RESPONSE_AFFINITY
    if isinstance(refusal, NoCapacity) and bound:
        return False  # an attempt failed where its state is
    if order is None or not order.refused(refusal):
        return False
    if not life.cause:
        gone = isinstance(refusal, OwnerGone)
        life.elsewhere(Cause.LIVES_ELSEWHERE if gone else Cause.TARGET_UNAVAILABLE)
    life.turn_to(order.current)
    return True


def _leave_failed(life: Lifecycle, left: int) -> None:
    """After a failed attempt at a target it may be the turn of the next one. Not for
    a request whose state is here."""
    order = life.targets
    bound = life.decision.reason == Reason.RESPONSE_AFFINITY
    if order is None or bound or not life.tried:
        return
    if order.failed(life.tried, left):
        life.turn_to(order.current)


def _told(life: Lifecycle, ask: Ask, refusal: Refusal | Problem) -> Refusal | Problem:
    """What the last refusal means if there were several targets. A client that
    continues a response can send its whole input to another one, instead of waiting."""
    order = life.targets
    if order is None:
        return refusal
    # The row names the target of the last attempt.
    life.turn_to(order.target_of(life.record.resource_id))
    if isinstance(refusal, OwnerLimited) and ask.chained:
        return OwnerGone()
    return order.told(refusal)


def _problem(life: Lifecycle, ask: Ask, refusal: Refusal | Problem) -> Problem:
    """What the client is told when no resource may serve its request."""
    if isinstance(refusal, Problem):
        return refusal
    if isinstance(refusal, QuotaRefused) and ask.quota is not None:
        return problem_of_quota(ask.quota, refusal, life.may_use)
    if isinstance(refusal, ForeignId):
        return life.foreign(refusal)
    return problem_of(refusal, ask, life.record.method)
