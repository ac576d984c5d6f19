"""Model aliases: a client-facing name for a model of one provider. Pure."""

from collections.abc import Iterable

import msgspec

from libs.common.contracts.catalogue import Catalogue, Resource
from libs.common.routing.types import session_digest

# Prefix of provider pools. Names of operators' pools cannot begin with it.
MARK = "@"


class AliasTarget(msgspec.Struct, frozen=True, gc=False):
    """Where an alias leads. `pool` is the provider's own, which is in no list of
    pools; `pool_ids` are those its resources are in."""

    alias: str
    provider_id: str
    upstream_id: str
    pool: str
    pool_ids: frozenset[str | None]

    @property
    def open(self) -> bool:
        """Whether the provider has any resource."""
        return bool(self.pool_ids)

    def passes(self, pool_id: str | None) -> bool:
        """Whether a request that names this pool may use the alias."""
        return pool_id is None or pool_id in self.pool_ids


def provider_pool(provider_id: str) -> str:
    """The pool of all resources of a provider, by name."""
    return MARK + provider_id


def in_pool(resource: Resource, pool_id: str) -> bool:
    """A resource is in its configured pool and in that of its provider."""
    if pool_id.startswith(MARK):
        return resource.provider_id == pool_id[1:]
    return resource.pool_id == pool_id


def alias_targets(catalogue: Catalogue) -> dict[str, AliasTarget]:
    """By alias."""
    return {
        alias.alias: AliasTarget(
            alias.alias,
            alias.provider_id,
            alias.upstream_id,
            provider_pool(alias.provider_id),
            _pools(catalogue.resources, alias.provider_id),
        )
        for alias in catalogue.aliases
    }


def _pools(resources: Iterable[Resource], provider_id: str) -> frozenset[str | None]:
    return frozenset(r.pool_id for r in resources if r.provider_id == provider_id)


def session_within(session_id: str | None, pool: str, tenant: str = "") -> str:
    """Session digest within one provider. A session has a resource at each provider, so
    that alternating between models of two does not move it."""
    return session_digest(f"{pool}\0{session_id}", tenant) if session_id else ""
