"""The choice of a resource: the rules of services/router/functions/choice.lua and
ranking.lua in Python. A gateway uses them without Redis, and tests compare the two.
Pure; times are Unix milliseconds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from libs.common.contracts.events import Cause
from libs.common.routing.account_limits import AccountLimits, full_until, most_left
from libs.common.routing.circuit_breaker import NEVER, Cooldown
from libs.common.routing.types import NAMED, Asker, Owner

WINDOW = 16  # ranks of a large pool in which ties are looked for

TRIAL_WAIT_MS = 1_000  # to ask again while a half-open trial is under way
TRIAL_LOOK_MS = 250  # the same for a request that waits in a queue

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
    by resource. `most_in_flight`: requests of a resource, or None. `held`: the resource
    that has the request's lease. `wait_ms`, `bound_ms`: how long it may wait for a
    limit, and if only one account can serve it."""

    now: float
    draw: int
    tried: Sequence[str] = ()
    cooldowns: Mapping[str, Cooldown] | None = None
    limits: Mapping[str, AccountLimits] | None = None  # by account
    tokens: int = 0
    others: bool = False  # a model alias has other targets: refuse rather than panic
    most_in_flight: int | None = None
    held: str = ""
    wait_ms: int = 0
    bound_ms: int = 0

    def full(self, standing: "Standing") -> bool:
        """Has a resource as many requests in flight as it may have?"""
        most, own = self.most_in_flight, standing.resource_id == self.held
        return most is not None and standing.in_flight - own >= most

    def waits(self, until_ms: float) -> bool:
        """Should the request wait for a limit that ends then?"""
        return 0 < self.wait_ms >= until_ms - self.now

    def limited_until(self, standing: "Standing") -> float | None:
        """When the limit resets of an account that cannot take the request before."""
        if self.limits is None:
            return None
        limits = self.limits.get(standing.account_id)
        return full_until(limits, self.tokens, self.now)

    def share_left(self, standing: "Standing") -> int:
        """What remains of the account's limits, in percent."""
        limits = (self.limits or {}).get(standing.account_id)
        return 100 if limits is None else limits.share


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
    short: bool = False  # no available resource's account can take the request


@dataclass(frozen=True, slots=True)
class _Weighed:
    """`short`: the accounts of `ties` cannot take the request, but no others can; their
    limit resets at `short_ms`. `crowded`: some have as many requests in flight as they
    may have."""

    ties: Sequence[Standing]
    soonest: Standing | None
    soonest_ms: float
    crowded: bool = False
    short: bool = False
    short_ms: float = 0


def by_load(pool: Sequence[Standing], question: Question, reason: str) -> Choice:
    """A half-open resource first, else the least loaded, else the one that is ready
    first. `busy`: the request may wait."""
    ranking = sorted(pool, key=lambda s: (s.rank, s.resource_id.encode()))
    weighed = _weigh(ranking, question)
    soonest = weighed.soonest
    room = soonest is not None and not question.full(soonest)
    if soonest and room and weighed.soonest_ms <= question.now:
        return Choice(soonest.resource_id, reason, "trial")
    if weighed.ties and not (question.others and weighed.short):
        if weighed.short and question.waits(weighed.short_ms):
            return Choice(None, "busy", until_ms=weighed.short_ms)
        chosen = _drawn(ranking, question, weighed.ties, short=weighed.short)
        return Choice(chosen.resource_id, reason, short=weighed.short)
    if not question.others:
        if weighed.crowded or (soonest and not room):
            return Choice(None, "busy")
        if soonest:
            return Choice(soonest.resource_id, "panic", "forced", weighed.soonest_ms)
    until_ms = weighed.soonest_ms if soonest else None
    return Choice(None, "no_capacity", until_ms=until_ms)


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
        ties = _with_most_left(weighed.ties, question, short=weighed.short)
        chosen = ties[question.draw % len(ties)]
        return Choice(chosen.resource_id, "response_affinity")
    return _by_first(siblings, weighed, question)


def unless_waiting(
    choice: Choice, cause: str, question: Question, wait_ms: int, *, on_trial: bool
) -> Choice:
    """A request waits for a rate limit that ends within `wait_ms`, instead of going to
    a resource in spite of it. `on_trial`: a half-open trial is under way there."""
    until_ms = choice.until_ms
    if choice.how != "forced" or not cause.startswith("429") or until_ms is None:
        return choice
    if on_trial:
        until_ms = min(until_ms, question.now + TRIAL_LOOK_MS)
    if not 0 < wait_ms >= until_ms - question.now:
        return choice
    return Choice(None, "busy", until_ms=until_ms)


def unless_limited(
    choice: Choice, cause: str, trial_now: float | None = None
) -> Choice:
    """A rate-limited account is waited for. A failing one is tried, because no other
    account can serve the request. `trial_now`: the time, if a half-open trial is under
    way, whose outcome is known long before it would time out."""
    if choice.how == "forced" and cause.startswith("429"):
        until_ms = choice.until_ms
        if until_ms is not None and trial_now is not None:
            until_ms = min(until_ms, trial_now + TRIAL_WAIT_MS)
        return Choice(None, "owner_limited", until_ms=until_ms)
    return choice


def anew_if_possible(
    choice: Choice, pool: Sequence[Standing], question: Question
) -> Choice:
    """For a WebSocket's request that continues a response. Its client can send the
    whole input instead: it need not wait for the account, nor see it fail, while any
    other resource can serve."""
    usable = choice.resource_id is not None and choice.how != "forced"
    usable = usable or (choice.reason == "busy" and question.wait_ms > 0)
    if usable or choice.reason == "owner_gone":
        return choice
    other = by_load(pool, question, "")
    if other.resource_id is not None and other.how != "forced":
        return Choice(None, "owner_gone")
    return choice


def better_elsewhere(
    standing: Standing, pool: Sequence[Standing], question: Question
) -> bool:
    """Is the account of a resource at its limit, and another resource can serve?"""
    if question.limited_until(standing) is None:
        return False
    other = by_load(pool, question, "")
    return other.resource_id is not None and other.how == "free" and not other.short


def serving(
    pool: Iterable[Standing], resource_id: str | None, question: Question
) -> Standing | None:
    """The resource of a session or socket, if it can serve the next request."""
    standing = next((s for s in pool if s.resource_id == resource_id), None)
    return standing if standing and _serves(standing, question) else None


def stays(
    here: Standing | None, pool: Sequence[Standing], question: Question, *, bound: bool
) -> bool:
    """Whether the resource of a socket serves its next request. One that names state
    (`bound`) may have to come here in spite of a limit."""
    if here is None:
        return False
    return bound or not better_elsewhere(here, pool, question)


def cause_of_leaving(
    home: Standing | None, question: Question, *, left_full: bool = False
) -> Cause:
    """Why the resource of a session or state was not chosen. None: it is gone.
    `left_full`: its account was at its limit, and another could serve."""
    if home is None:
        return Cause.GONE
    if home.ready_ms >= NEVER:
        return Cause.UNHEALTHY
    cooling = question.cooldowns is not None and home.resource_id in question.cooldowns
    if home.ready_ms or cooling:
        return Cause.COOLING_DOWN
    if question.full(home):
        return Cause.BUSY
    return Cause.LIMIT_REACHED if left_full else Cause.ANOTHER_POOL


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
    if standing.ready_ms or cooling or id_ in question.tried:
        return False
    return not question.full(standing)


def _weigh(ranking: Sequence[Standing], question: Question) -> _Weighed:
    """The least loaded that can serve, and of the others the one that is ready
    first. A resource whose account cannot take the request is passed over while another
    can; else the one whose limit resets first serves."""
    cooldowns = question.cooldowns or {}
    free: list[Standing] = []
    spare: list[tuple[float, float, Standing]] = []
    soonest, soonest_ms, crowded = None, NEVER, False
    for standing in ranking:
        if standing.resource_id in question.tried:
            continue
        cooldown = cooldowns.get(standing.resource_id)
        ready_ms = max(standing.ready_ms, cooldown.ready_ms if cooldown else 0)
        full = not ready_ms and question.full(standing)
        full_ms = None if ready_ms else question.limited_until(standing)
        if full:
            crowded = True
        elif full_ms is not None:
            spare.append((full_ms, standing.rank, standing))
        elif not ready_ms:
            free.append(standing)
        elif ready_ms < soonest_ms:
            soonest, soonest_ms = standing, ready_ms
    if spare and not free:
        first = min(each[:2] for each in spare)
        ties = [each[2] for each in spare if each[:2] == first]
        return _Weighed(ties, soonest, soonest_ms, crowded, True, first[0])
    lowest = min((s.rank for s in free), default=0)
    ties = [s for s in free if s.rank == lowest]
    return _Weighed(ties, soonest, soonest_ms, crowded)


def _by_first(
    siblings: Sequence[Standing], weighed: _Weighed, question: Question
) -> Choice:
    """None of an account is free: by the one that is ready first."""
    first = weighed.soonest
    room = first is not None and not question.full(first)
    if first and room and weighed.soonest_ms <= question.now:
        return Choice(first.resource_id, "response_affinity", "trial")
    if weighed.crowded or (first and not room):
        return Choice(None, "busy")
    if first is None:
        failed = any(
            s.resource_id in question.tried and s.ready_ms < NEVER for s in siblings
        )
        return Choice(None, "no_capacity" if failed else "owner_gone")
    return Choice(first.resource_id, "response_affinity", "forced", weighed.soonest_ms)


def _with_most_left(
    ties: Sequence[Standing], question: Question, *, short: bool
) -> Sequence[Standing]:
    if short or not question.limits:
        return ties
    return most_left(ties, [question.share_left(tie) for tie in ties])


def _drawn(
    ranking: Sequence[Standing],
    question: Question,
    ties: Sequence[Standing],
    *,
    short: bool,
) -> Standing:
    """Breaks ties by `draw`, so that gateways do not all choose the same resource. For
    a large pool the Lua library does not read all ties: it draws a place among
    them."""
    draw, window = question.draw, ranking[:WINDOW]
    large = len(window) == WINDOW and not window[-1].ready_ms and not short
    near = [standing for standing in ties if standing in window]
    if large and near and not question.cooldowns:
        lowest = ties[0].rank
        everyone = [s for s in ranking if s.rank == lowest]
        drawn = everyone[draw % len(everyone)]
        serves = _serves(drawn, question) and question.limited_until(drawn) is None
        if window[-1].rank == lowest and serves:
            return drawn
        near_by = _with_most_left(near, question, short=False)
        return near_by[draw % len(near_by)]
    ties = _with_most_left(ties, question, short=short)
    return ties[draw % len(ties)]
