"""Model aliases: a client-facing name for a model of one provider, or of several, which
are its targets. Pure."""

import hashlib
import math
from collections.abc import Iterable, Sequence

import msgspec

from libs.common.contracts.catalogue import Alias, Catalogue, ModelTarget, Resource
from libs.common.routing.types import Kept, session_digest

# Prefix of provider pools. Names of operators' pools cannot begin with it.
MARK = "@"


class AliasTarget(msgspec.Struct, frozen=True, gc=False):
    """Where an alias leads. `pool` is the provider's own, which is in no list of
    pools; `pool_ids`, `resource_ids` and `account_ids` are those of its resources."""

    alias: str
    provider_id: str
    upstream_id: str
    pool: str
    pool_ids: frozenset[str | None]
    weight: float = 1.0
    priority: int = 0
    resource_ids: frozenset[str] = frozenset()
    account_ids: frozenset[str] = frozenset()

    @property
    def open(self) -> bool:
        """Whether the provider has any resource."""
        return bool(self.pool_ids)

    def passes(self, pool_id: str | None) -> bool:
        """Whether a request that names this pool may use the target."""
        return pool_id is None or pool_id in self.pool_ids

    def holds(self, kept: Kept) -> bool:
        """Whether state is at the provider."""
        owner = kept.owner
        if owner is None:
            return False
        return (
            owner.resource_id in self.resource_ids
            or owner.account_id in self.account_ids
        )


Targets = tuple[AliasTarget, ...]


def provider_pool(provider_id: str) -> str:
    """The pool of all resources of a provider, by name."""
    return MARK + provider_id


def in_pool(resource: Resource, pool_id: str) -> bool:
    """A resource is in its configured pool and in that of its provider."""
    if pool_id.startswith(MARK):
        return resource.provider_id == pool_id[1:]
    return resource.pool_id == pool_id


def alias_targets(catalogue: Catalogue) -> dict[str, Targets]:
    """By alias; at least one for each."""
    found = {}
    for alias in catalogue.aliases:
        targets = alias.targets or (_single(alias),)
        name, resources = alias.alias, catalogue.resources
        found[name] = tuple([_target(name, each, resources) for each in targets])
    return found


def _single(alias: Alias) -> ModelTarget:
    return ModelTarget(provider_id=alias.provider_id, upstream_id=alias.upstream_id)


def _target(
    name: str, target: ModelTarget, resources: Iterable[Resource]
) -> AliasTarget:
    theirs = [r for r in resources if r.provider_id == target.provider_id]
    return AliasTarget(
        name,
        target.provider_id,
        target.upstream_id,
        provider_pool(target.provider_id),
        frozenset(r.pool_id for r in theirs),
        target.weight,
        target.priority,
        frozenset(r.id for r in theirs),
        frozenset(r.account_id for r in theirs),
    )


# Several targets ------------------------------------------------------------------


def in_order(targets: Sequence[AliasTarget], seed: str) -> Targets:
    """The order in which targets are tried: by priority, and within a priority drawn by
    weight. The same `seed` (a session's digest, or a request's id) always gives the
    same order, and a new target takes only its own share of seeds from the others
    (weighted rendezvous hashing)."""
    return tuple(sorted(targets, key=lambda t: (t.priority, _drawn(t, seed))))


def _drawn(target: AliasTarget, seed: str) -> float:
    """Exponentially distributed with the rate `weight`: the least of several belongs to
    each one with the probability of its share of the weights."""
    text = f"{target.provider_id}\0{target.upstream_id}\0{seed}".encode()
    number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
    return -math.log((number + 0.5) / 2**64) / target.weight


def at_first(targets: Sequence[AliasTarget], provider_id: str | None) -> Targets:
    """The same order, but those of a provider come first."""
    return tuple(sorted(targets, key=lambda t: t.provider_id != provider_id))


def home_of(
    targets: Sequence[AliasTarget], ids: Sequence[Kept], sessions: Sequence[Kept]
) -> str | None:
    """The provider of the target where a request's state is: that of the first known
    id, else where the session was last. `sessions` are those `within` each target, in
    their order; none if the session does not matter. None: it may go anywhere."""
    for kept in ids:
        for target in targets:
            if target.holds(kept):
                return target.provider_id
    homes = [
        (kept.left_ms, target.provider_id)
        for target, kept in zip(targets, sessions, strict=False)
        if target.holds(kept)
    ]
    return max(homes, key=lambda home: home[0])[1] if homes else None


def session_within(session_id: str | None, pool: str, tenant: str = "") -> str:
    """Session digest within one provider. A session has a resource at each provider, so
    that alternating between models of two does not move it."""
    return session_digest(f"{pool}\0{session_id}", tenant) if session_id else ""
