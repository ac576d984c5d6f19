"""Routing state in memory. A gateway routes by it while Redis is away. Pure; times are
Unix milliseconds.

tests/support/memory/reference.py adds what only the function library in Redis does;
tests/integration/routing/test_policy_agrees.py compares the two."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from libs.common.contracts.catalogue import HealthState, Resource
from libs.common.contracts.events import Reason
from libs.common.routing.account_limits import LimitTable
from libs.common.routing.aliases import MARK, in_pool
from libs.common.routing.circuit_breaker import (
    NEVER,
    TRIAL_MS,
    Cooldown,
    Health,
    Report,
    judge,
)
from libs.common.routing.model_cooldowns import ModelCooldowns
from libs.common.routing.owner_memory import OwnerMemory
from libs.common.routing.policy import (
    Choice,
    Question,
    Standing,
    anew_if_possible,
    better_elsewhere,
    by_account,
    by_load,
    cause_of_leaving,
    owner_of,
    serving,
    stays,
    unless_limited,
    unless_waiting,
)
from libs.common.routing.types import (
    CONFINED,
    DECIDED,
    OTHERS,
    Ask,
    Busy,
    NoCapacity,
    NoResources,
    Owner,
    OwnerGone,
    OwnerLimited,
    Refusal,
    Release,
    UnknownIds,
    UnknownPool,
    model_digest,
)
from libs.common.upstream_answers.verdicts import Verdict

NEUTRAL = Verdict(kind="neutral")
Field = tuple[str, str]  # gateway, request


class LocalRouting(OwnerMemory):
    """Resources, their health and leases, and the owners of sessions and ids."""

    def __init__(
        self,
        cooldown_ms: int = 30_000,
        most_owners: int = 50_000,
        *,
        limit_aware: bool = True,
    ) -> None:
        super().__init__(most_owners)
        self._limit_aware = limit_aware
        self._cooldown_ms = cooldown_ms
        self.resources: dict[str, Resource] = {}
        self.health: dict[str, Health] = {}
        self.cooldowns = ModelCooldowns()
        self.limits = LimitTable()
        self.leases: dict[str, set[Field]] = {}

    # Catalogue ---------------------------------------------------------------

    def publish(self, resources: Iterable[Resource]) -> None:
        """Replace the catalogue. A new key or address starts without a record."""
        before, self.resources = self.resources, {r.id: r for r in resources}
        for old in before.values():
            new = self.resources.get(old.id)
            if new is None or _moved(old, new):
                self.health.pop(old.id, None)
        for id_ in self.resources:
            health = self.health.setdefault(id_, Health())
            health.ready_ms = _ready_ms(health)
            self.leases.setdefault(id_, set())

    # Choice ------------------------------------------------------------------

    def acquire(self, ask: Ask, now: float) -> Choice:
        """Choose a resource and take a lease on it. Raises a `Refusal`."""
        choice = self.choose(ask, now)
        if choice.resource_id is None:
            raise _refusal(choice, now)
        field = ask.gateway_id, ask.request_id
        if ask.previous != choice.resource_id:
            self.leases.get(ask.previous, set()).discard(field)
        self.leases[choice.resource_id].add(field)
        if ask.tokens is not None:
            account = self.resources[choice.resource_id].account_id
            self.limits.took(ask.model, account, ask.tokens, now)
        if choice.how == "trial":
            self._begin_trial(ask, choice.resource_id, now)
        return choice

    def choose(self, ask: Ask, now: float) -> Choice:
        """The same without effects."""
        home, question, choice = self._choose(ask, now)
        later = ask.attempt > 1 and DECIDED not in ask.turn
        if home is None or home == choice.resource_id or later:
            return choice
        resource = self.resources.get(home)
        standing = self._standing(resource) if resource else None
        left = serving(self._pool(ask.pool_id), home, question)
        full = left is not None and question.limited_until(left) is not None
        cause = cause_of_leaving(standing, question, left_full=full)
        return replace(choice, cause=cause)

    def _choose(self, ask: Ask, now: float) -> tuple[str | None, Question, Choice]:
        """Also returns the resource of the session or state, if any."""
        if not self.resources:
            raise NoResources
        pool = self._pool(ask.pool_id)
        cooldowns = self.cooldowns.get(ask.model) or None
        question = self._question(ask, cooldowns, now)
        self.check_ids(ask)
        here = ask.socket or None
        bound = ask.chained or ask.account_bound or bool(ask.bound)
        if stays(serving(pool, here, question), pool, question, bound=bound):
            return here, question, Choice(here, "socket")
        session = self.sessions.get(ask.session)
        owner = self._owner(ask, session)
        if owner is None and not ask.resolved and self._unsought(ask):
            raise UnknownIds(0)
        if owner is None and here and (ask.chained or ask.account_bound):
            owner = self._held_by(here)
        if owner is not None:
            choice = self._by_account(owner, ask, question)
            if ask.chained:
                choice = anew_if_possible(choice, pool, question)
            return here or owner.resource_id, question, choice
        home = session.resource_id if session else None
        standing = serving(pool, home, question)
        if standing and not better_elsewhere(standing, pool, question):
            return here or home, question, Choice(home, "session_affinity")
        choice = by_load(pool, question, _reason(ask, session))
        return here or home, question, self._waiting(choice, question, question.wait_ms)

    def _question(
        self, ask: Ask, cooldowns: Mapping[str, Cooldown] | None, now: float
    ) -> Question:
        others = OTHERS in ask.turn
        if ask.tokens is None or not self._limit_aware:
            return Question(now, ask.draw, ask.tried, cooldowns, others=others)
        limits = self.limits.of(ask.model, now)
        return Question(now, ask.draw, ask.tried, cooldowns, limits, ask.tokens, others)

    def _owner(self, ask: Ask, session: Owner | None) -> Owner | None:
        """Who made the state that a request needs, as far as it is known."""
        if CONFINED in ask.turn:
            return self._held_by(ask.socket)
        owner = owner_of([self.ids.get(digest) for digest in ask.bound])
        return session if owner is None and ask.account_bound else owner

    def _held_by(self, resource_id: str) -> Owner:
        resource = self.resources.get(resource_id)
        return Owner(resource_id, resource.account_id if resource else "")

    def standings(self) -> list[Standing]:
        """Every resource as the policy sees it."""
        return [self._standing(resource) for resource in self.resources.values()]

    # Reports -----------------------------------------------------------------

    def release(self, release: Release, now: float) -> None:
        """Apply how an attempt ended. With an event the request is over."""
        over = release.event is not None
        known = self.resources.get(release.resource_id)
        if known is not None and release.limits and self._limit_aware:
            model = model_digest(release.model)
            self.limits.learn(model, known.account_id, release.limits, now)
        if release.verdict and release.resource_id in self.resources:
            self._apply(release, release.resource_id, release.verdict, now)
            if over:
                self._remember(release, release.verdict)
        if not over:
            return
        held = self._drop((release.gateway_id, release.request_id), release.resource_id)
        if held in self.resources and held != release.resource_id:
            # Ended before its gateway knew the resource: no trial has taken place.
            self._apply(release, held, NEUTRAL, now)

    def forget_health(self) -> None:
        """Drop all health: Redis has kept it meanwhile."""
        self.cooldowns.clear()
        self.limits = LimitTable()
        self.health = {id_: Health() for id_ in self.resources}

    # Within ------------------------------------------------------------------

    def _pool(self, pool_id: str | None) -> list[Standing]:
        if pool_id is None:
            return self.standings()
        pool = [r for r in self.resources.values() if in_pool(r, pool_id)]
        if not pool:
            pools = {r.pool_id for r in self.resources.values() if r.pool_id}
            raise UnknownPool(tuple(sorted(pools)))
        return [self._standing(resource) for resource in pool]

    def _standing(self, resource: Resource) -> Standing:
        return Standing(
            resource.id,
            resource.account_id,
            resource.weight,
            len(self.leases[resource.id]),
            self.health[resource.id].ready_ms,
        )

    def _by_account(self, owner: Owner, ask: Ask, question: Question) -> Choice:
        """State of an account is looked for beyond pools, but within a provider."""
        account = self._account_of(owner)
        of_provider = ask.pool_id is not None and ask.pool_id.startswith(MARK)
        reach = self._pool(ask.pool_id) if of_provider else self.standings()
        siblings = [s for s in reach if s.account_id == account]
        if CONFINED in ask.turn:
            reach = self.standings()
            siblings = [s for s in reach if s.resource_id == owner.resource_id]
        choice = by_account(siblings, owner.resource_id, question)
        choice = self._waiting(choice, question, question.bound_ms)
        if choice.resource_id is None:
            return choice
        trial = self._trial(choice.resource_id, question)
        cause = self._cause(choice.resource_id, question)
        return unless_limited(choice, cause, question.now if trial else None)

    def _account_of(self, owner: Owner) -> str:
        resource = self.resources.get(owner.resource_id)
        return resource.account_id if resource else owner.account_id

    def _waiting(self, choice: Choice, question: Question, wait_ms: int) -> Choice:
        if choice.resource_id is None:
            return choice
        on_trial = bool(self._trial(choice.resource_id, question))
        cause = self._cause(choice.resource_id, question)
        return unless_waiting(choice, cause, question, wait_ms, on_trial=on_trial)

    def _trial(self, resource_id: str, question: Question) -> str:
        cooldown = (question.cooldowns or {}).get(resource_id)
        return cooldown.trial if cooldown else self.health[resource_id].trial

    def _cause(self, resource_id: str, question: Question) -> str:
        cooldown = (question.cooldowns or {}).get(resource_id)
        return cooldown.cause if cooldown else self.health[resource_id].cause

    def _unsought(self, ask: Ask) -> bool:
        """Whether SQL was not asked for some of the ids."""
        session = ask.account_bound and ask.session and ask.session not in self.sessions
        return bool(session) or any(digest not in self.ids for digest in ask.bound)

    def _begin_trial(self, ask: Ask, resource_id: str, now: float) -> None:
        siblings, by = self._siblings(resource_id), ask.request_id
        self.cooldowns.begin_trial(ask.model, resource_id, siblings, by, now)
        health = self.health[resource_id]
        if health.ready_ms:
            health.trial, health.ready_ms = ask.request_id, now + TRIAL_MS

    def _apply(
        self, release: Release, resource_id: str, verdict: Verdict, now: float
    ) -> None:
        """Apply a verdict to a resource, and to the request's model on it."""
        cooldown_ms, by = self.cooldown_of(verdict), release.request_id
        model = model_digest(release.model)
        if model:
            of_account = verdict.of_account and self._limit_aware
            siblings = self._siblings(resource_id)
            report = Report(resource_id, verdict, cooldown_ms, by, siblings, of_account)
            self.cooldowns.judge(model, report, now)
            cooldown_ms = report.cooldown_ms
            if verdict.kind == "limited":
                verdict = NEUTRAL  # for the resource as a whole
        judge(self.health[resource_id], verdict, cooldown_ms, by, now)

    def _siblings(self, resource_id: str) -> list[str]:
        """The other resources of the account."""
        account = self.resources[resource_id].account_id
        return [
            r.id
            for r in self.resources.values()
            if r.account_id == account and r.id != resource_id
        ]

    def _remember(self, release: Release, verdict: Verdict) -> None:
        resource = self.resources[release.resource_id]
        owner = Owner(resource.id, resource.account_id, release.tenant)
        if release.session and verdict.kind == "ok":
            self.keep(self.sessions, release.session, owner)
        for digest in release.learned:
            self.keep(self.ids, digest, owner)

    def _drop(self, field: Field, likely: str) -> str:
        """Remove a lease; returns the resource that had it, or ''."""
        for id_ in (likely, *self.leases):
            if field in self.leases.get(id_, ()):
                self.leases[id_].discard(field)
                return id_
        return ""

    def cooldown_of(self, verdict: Verdict) -> int:
        given = verdict.cooldown_ms
        return self._cooldown_ms if given is None else given


def _reason(ask: Ask, session: Owner | None) -> str:
    if ask.replayed:
        return Reason.REPLAYED
    return Reason.SESSION_FAILOVER if session else Reason.WEIGHTED_LEAST_CONNECTIONS


def _moved(old: Resource, new: Resource) -> bool:
    return old.credential != new.credential or old.base_url != new.base_url


def _ready_ms(health: Health) -> float:
    if health.state is HealthState.UNHEALTHY:
        return NEVER
    return health.until_ms if health.state is HealthState.DEGRADED else 0


def _refusal(choice: Choice, now: float) -> Refusal:
    wait_ms = int(max(choice.until_ms - now, 0)) if choice.until_ms else 0
    if choice.reason == "busy":
        return Busy(wait_ms)
    if choice.reason == "owner_limited":
        return OwnerLimited(wait_ms)
    return OwnerGone() if choice.reason == "owner_gone" else NoCapacity(wait_ms)
