"""Routing state in memory. A gateway routes by it while Redis is away. Pure; times are
Unix milliseconds.

tests/support/memory/reference.py adds what only the function library in Redis does;
tests/integration/routing/test_policy_agrees.py compares the two."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from libs.common.contracts.catalogue import HealthState, Resource
from libs.common.contracts.events import Reason
from libs.common.contracts.verdicts import Verdict
from libs.common.routing.aliases import MARK, in_pool
from libs.common.routing.circuit_breaker import (
    NEVER,
    TRIAL_MS,
    Cooldown,
    Health,
    judge,
    judge_model,
)
from libs.common.routing.policy import (
    Choice,
    Question,
    Standing,
    at_home,
    by_account,
    by_load,
    cause_of_leaving,
    foreign_id,
    owner_of,
    unless_limited,
)
from libs.common.routing.types import (
    Ask,
    ForeignId,
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

MOST_COOLING = 1000  # models in cooldown, as in functions/health.lua
NEUTRAL = Verdict(kind="neutral")
Field = tuple[str, str]  # gateway, request


class LocalRouting:
    """Resources, their health and leases, and the owners of sessions and ids."""

    def __init__(self, cooldown_ms: int = 30_000, most_owners: int = 50_000) -> None:
        self._cooldown_ms = cooldown_ms
        self._most_owners = most_owners
        self.resources: dict[str, Resource] = {}
        self.health: dict[str, Health] = {}
        self.cooldowns: dict[str, dict[str, Cooldown]] = {}  # model digest -> resource
        self.leases: dict[str, set[Field]] = {}
        self.sessions: OrderedDict[str, Owner | None] = OrderedDict()
        self.ids: OrderedDict[str, Owner | None] = OrderedDict()

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
        if choice.how == "trial":
            self._begin_trial(ask, choice.resource_id, now)
        return choice

    def choose(self, ask: Ask, now: float) -> Choice:
        """The same without effects."""
        home, question, choice = self._choose(ask, now)
        if home is None or home == choice.resource_id or ask.attempt > 1:
            return choice
        resource = self.resources.get(home)
        standing = self._standing(resource) if resource else None
        return replace(choice, cause=cause_of_leaving(standing, question))

    def _choose(self, ask: Ask, now: float) -> tuple[str | None, Question, Choice]:
        """Also returns the resource of the session or state, if any."""
        if not self.resources:
            raise NoResources
        pool = self._pool(ask.pool_id)
        cooldowns = self.cooldowns.get(ask.model) or None
        question = Question(now, ask.draw, ask.tried, cooldowns)
        self.check_ids(ask)
        session = self.sessions.get(ask.session)
        owner = owner_of([self.ids.get(digest) for digest in ask.bound])
        if owner is None and ask.account_bound:
            owner = session
        if owner is not None:
            choice = self._by_account(owner, ask.pool_id, question)
            return owner.resource_id, question, choice
        if not ask.resolved and self._unsought(ask):
            raise UnknownIds(0)
        home = session.resource_id if session else None
        if at_home(next((s for s in pool if s.resource_id == home), None), question):
            return home, question, Choice(home, "session_affinity")
        return home, question, by_load(pool, question, _reason(ask, session))

    def check_ids(self, ask: Ask) -> None:
        """Raises `ForeignId` if the request may not name its ids, `UnknownIds` if SQL
        must be asked first."""
        asker = ask.asker
        ids = (*ask.bound, *asker.further)
        owners: Mapping[str, Owner | None] = self.ids
        if ask.resolved:
            owners = {id_: self.ids.get(id_) for id_ in ids}
        refused = foreign_id(asker, ids, owners)
        if refused is not None:
            reason, which = refused
            raise ForeignId(which, known=reason == "foreign_id")
        if asker.kinds and any(id_ not in owners for id_ in ids):
            raise UnknownIds(0)

    def standings(self) -> list[Standing]:
        """Every resource as the policy sees it."""
        return [self._standing(resource) for resource in self.resources.values()]

    # Reports -----------------------------------------------------------------

    def release(self, release: Release, now: float) -> None:
        """Apply how an attempt ended. With an event the request is over."""
        over = release.event is not None
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
        self.health = {id_: Health() for id_ in self.resources}

    def remember(
        self,
        sessions: Mapping[str, Owner | None],
        ids: Mapping[str, Owner | None],
    ) -> None:
        """Add owners that are not known yet. None: SQL does not know the id."""
        for kept, told in ((self.sessions, sessions), (self.ids, ids)):
            for name, owner in told.items():
                if kept.get(name) is None:
                    self.keep(kept, name, owner)

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

    def _by_account(
        self, owner: Owner, pool_id: str | None, question: Question
    ) -> Choice:
        """State of an account is looked for beyond pools, but within a provider."""
        resource = self.resources.get(owner.resource_id)
        account = resource.account_id if resource else owner.account_id
        of_provider = pool_id is not None and pool_id.startswith(MARK)
        reach = self._pool(pool_id) if of_provider else self.standings()
        siblings = [s for s in reach if s.account_id == account]
        choice = by_account(siblings, owner.resource_id, question)
        if choice.resource_id is None:
            return choice
        return unless_limited(choice, self._cause(choice.resource_id, question))

    def _cause(self, resource_id: str, question: Question) -> str:
        cooldown = (question.cooldowns or {}).get(resource_id)
        return cooldown.cause if cooldown else self.health[resource_id].cause

    def _unsought(self, ask: Ask) -> bool:
        """Whether SQL was not asked for some of the ids."""
        session = ask.account_bound and ask.session and ask.session not in self.sessions
        return bool(session) or any(digest not in self.ids for digest in ask.bound)

    def _begin_trial(self, ask: Ask, resource_id: str, now: float) -> None:
        cooldown = self.cooldowns.get(ask.model, {}).get(resource_id)
        if cooldown:
            cooldown.trial, cooldown.trial_until = ask.request_id, now + TRIAL_MS
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
            cooling = self.cooldowns.pop(model, {})
            before = cooling.pop(resource_id, None)
            cooldown = judge_model(before, verdict, cooldown_ms, by, now)
            if cooldown:
                cooling[resource_id] = cooldown
            if cooling:
                self._keep_cooldowns(model, cooling)
            if verdict.kind == "limited":
                verdict = NEUTRAL  # for the resource as a whole
        judge(self.health[resource_id], verdict, cooldown_ms, by, now)

    def _keep_cooldowns(self, model: str, cooling: dict[str, Cooldown]) -> None:
        """Clients choose model names, so their number is bounded: the oldest goes."""
        if len(self.cooldowns) >= MOST_COOLING:
            del self.cooldowns[next(iter(self.cooldowns))]
        self.cooldowns[model] = cooling

    def _remember(self, release: Release, verdict: Verdict) -> None:
        resource = self.resources[release.resource_id]
        owner = Owner(resource.id, resource.account_id, release.tenant)
        if release.session and verdict.kind == "ok":
            self.keep(self.sessions, release.session, owner)
        for digest in release.learned:
            self.keep(self.ids, digest, owner)

    def keep(
        self, kept: OrderedDict[str, Owner | None], name: str, owner: Owner | None
    ) -> None:
        """Set an owner. An id stays with the tenant that minted it, because a later
        response may repeat ids that its client chose."""
        before = kept.get(name)
        if before is not None:
            if owner is not None and before.tenant != owner.tenant:
                owner = before
            kept.move_to_end(name)
        kept[name] = owner
        if len(kept) > self._most_owners:
            kept.popitem(last=False)

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
    if choice.reason == "owner_limited":
        return OwnerLimited(wait_ms)
    return OwnerGone() if choice.reason == "owner_gone" else NoCapacity(wait_ms)
