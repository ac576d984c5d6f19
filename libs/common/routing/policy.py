"""The choice of a resource: the rules of services/router/functions/choice.lua and
ranking.lua in Python. A gateway uses them without Redis, and tests compare the two.
Pure; times are Unix milliseconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from libs.common.contracts.events import Cause
from libs.common.routing.circuit_breaker import NEVER, Cooldown
from libs.common.routing.types import NAMED, Asker, Owner

WINDOW = 16  # ranks of a large pool in which ties are looked for

How = Literal["free", "trial", "forced"]


@dataclass(frozen=True, slots=True)
class Standing:
    """A resource as the policy sees it. `ready_ms`: when it may be tried; 0: it is
    available."""

    resource_id: str
    account_id: str
    weight: float
    in_flight: int
    ready_ms: float

    @property
    def rank(self) -> float:
        """Load per weight with the next request. For an unavailable resource the time
        when it may be tried, which is always higher."""
        return self.ready_ms or (self.in_flight + 1) / self.weight


@dataclass(frozen=True, slots=True)
class Question:
    """What the choice depends on besides resources. `cooldowns` of the request's model,
    by resource."""

    now: float
    draw: int
    tried: Sequence[str] = ()
    cooldowns: Mapping[str, Cooldown] | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """A resource, or None and the reason. `how`: free (available), trial (half open),
    forced (in spite of its state). `until_ms`: when asking again may succeed. `cause`:
    for a first attempt, why the resource of the session or state was not chosen."""

    resource_id: str | None
    reason: str
    how: How = "free"
    until_ms: float | None = None
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class _Weighed:
    ties: Sequence[Standing]
    soonest: Standing | None
    soonest_ms: float


def by_load(pool: Sequence[Standing], question: Question, reason: str) -> Choice:
    """A half-open resource first, else the least loaded, else the one that is ready
    first."""
    ranking = sorted(pool, key=lambda s: (s.rank, s.resource_id.encode()))
    weighed = _weigh(ranking, question)
    soonest = weighed.soonest
    if soonest and weighed.soonest_ms <= question.now:
        return Choice(soonest.resource_id, reason, "trial")
    if weighed.ties:
        chosen = _drawn(ranking, question, weighed.ties)
        return Choice(chosen.resource_id, reason)
    if soonest:
        return Choice(soonest.resource_id, "panic", "forced")
    return Choice(None, "no_capacity")


def by_account(siblings: Sequence[Standing], owner: str, question: Question) -> Choice:
    """For state of an account: the resource that made it, else the least loaded of the
    account; when none is available, by the one that is ready first."""
    if not siblings:
        return Choice(None, "owner_gone")
    for standing in siblings:
        if standing.resource_id == owner and _serves(standing, question):
            return Choice(owner, "response_affinity")
    weighed = _weigh(siblings, question)
    if weighed.ties:
        chosen = weighed.ties[question.draw % len(weighed.ties)]
        return Choice(chosen.resource_id, "response_affinity")
    if weighed.soonest is None:
        failed = any(
            s.resource_id in question.tried and s.ready_ms < NEVER for s in siblings
        )
        return Choice(None, "no_capacity" if failed else "owner_gone")
    how: How = "trial" if weighed.soonest_ms <= question.now else "forced"
    return Choice(
        weighed.soonest.resource_id, "response_affinity", how, weighed.soonest_ms
    )


def unless_limited(choice: Choice, cause: str) -> Choice:
    """A rate-limited account is waited for. A failing one is tried, because no other
    account can serve the request."""
    if choice.how == "forced" and cause.startswith("429"):
        return Choice(None, "owner_limited", until_ms=choice.until_ms)
    return choice


def at_home(standing: Standing | None, question: Question) -> bool:
    """Whether a session's resource can serve its next request."""
    return standing is not None and _serves(standing, question)


def cause_of_leaving(home: Standing | None, question: Question) -> Cause:
    """Why the resource of a session or state was not chosen. None: it is gone."""
    if home is None:
        return Cause.GONE
    if home.ready_ms >= NEVER:
        return Cause.UNHEALTHY
    cooling = question.cooldowns is not None and home.resource_id in question.cooldowns
    return Cause.COOLING_DOWN if home.ready_ms or cooling else Cause.ANOTHER_POOL


def owner_of(bound: Sequence[Owner | None]) -> Owner | None:
    """The first known owner: the most specific ids come first."""
    return next((owner for owner in bound if owner is not None), None)


def foreign_id(
    asker: Asker, ids: Sequence[str], owners: Mapping[str, Owner | None]
) -> tuple[str, int] | None:
    """Why a request may not name its ids, and which one; None if it may. `ids` are
    digests in the order of `asker.kinds`. SQL was not asked for ids that are not in
    `owners`."""
    for which, id_ in enumerate(ids):
        if id_ not in owners:
            continue
        owner = owners[id_]
        if owner is not None:
            if owner.tenant != asker.tenant and (owner.tenant or asker.strict):
                return "foreign_id", which
        elif asker.strict and asker.kinds[which : which + 1] == NAMED:
            return "unknown_id", which
    return None


def _serves(standing: Standing, question: Question) -> bool:
    id_ = standing.resource_id
    cooling = question.cooldowns is not None and id_ in question.cooldowns
    return not standing.ready_ms and id_ not in question.tried and not cooling


def _weigh(ranking: Sequence[Standing], question: Question) -> _Weighed:
    """The least loaded that can serve, and of the others the one that is ready
    first."""
    cooldowns = question.cooldowns or {}
    free: list[Standing] = []
    soonest, soonest_ms = None, NEVER
    for standing in ranking:
        if standing.resource_id in question.tried:
            continue
        cooldown = cooldowns.get(standing.resource_id)
        ready_ms = max(standing.ready_ms, cooldown.ready_ms if cooldown else 0)
        if not ready_ms:
            free.append(standing)
        elif ready_ms < soonest_ms:
            soonest, soonest_ms = standing, ready_ms
    lowest = min((s.rank for s in free), default=0)
    return _Weighed([s for s in free if s.rank == lowest], soonest, soonest_ms)


def _drawn(
    ranking: Sequence[Standing], question: Question, ties: Sequence[Standing]
) -> Standing:
    """Breaks ties by `draw`, so that gateways do not all choose the same resource. For
    a large pool the Lua library does not read all ties: it draws a place among
    them."""
    draw, window = question.draw, ranking[:WINDOW]
    large = len(window) == WINDOW and not window[-1].ready_ms
    near = [standing for standing in ties if standing in window]
    if large and near and not question.cooldowns:
        lowest = ties[0].rank
        everyone = [s for s in ranking if s.rank == lowest]
        drawn = everyone[draw % len(everyone)]
        if window[-1].rank == lowest and drawn.resource_id not in question.tried:
            return drawn
        return near[draw % len(near)]
    return ties[draw % len(ties)]
