"""Registered providers and model aliases, and the resources derived from them.
Pure: the environment is an argument."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from libs.common.contracts.catalogue import Alias, Catalogue, Resource
from libs.common.contracts.events import Row
from libs.common.providers.credentials import SEALED
from libs.common.providers.references import VARIABLE
from libs.common.settings.resources import keys_in


@dataclass(frozen=True, slots=True)
class Provider:
    """The columns of a `providers` row that routing needs. `sealed` are its keys."""

    id: str
    name: str
    base_url: str
    sealed: tuple[str, ...]
    credential_ref: str | None
    pool_id: str | None
    account_id: str | None
    weight: float
    enabled: bool


@dataclass(frozen=True, slots=True)
class Registry:
    """All providers, and the enabled aliases."""

    providers: tuple[Provider, ...] = ()
    aliases: tuple[Alias, ...] = ()


def provider_of(row: Mapping[str, Any]) -> Provider:
    """Build a provider from its SQL row."""
    sealed = row["api_key_sealed"]
    return Provider(
        id=row["id"],
        name=row["name"],
        base_url=row["base_url"],
        sealed=tuple(sealed.split(",")) if sealed else (),
        credential_ref=row["credential_ref"],
        pool_id=row["pool_id"],
        account_id=row["account_id"],
        weight=row["weight"],
        enabled=bool(row["enabled"]),
    )


def registry_of(providers: Iterable[Row], models: Iterable[Row]) -> Registry:
    """Build the registry from the rows of both tables."""
    return Registry(
        tuple(map(provider_of, providers)),
        tuple(
            Alias(
                alias=row["alias"],
                provider_id=row["provider_id"],
                upstream_id=row["upstream_id"],
            )
            for row in models
            if row["enabled"]
        ),
    )


def resources_of(
    provider: Provider, environ: Mapping[str, str]
) -> tuple[Resource, ...]:
    """Return a resource for each key: `<provider id>` for a single key, `ID-N`
    for several. A variable that is not set here counts as one key, because it
    may be set where the gateways run."""
    if not provider.enabled:
        return ()
    credentials = _credentials(provider, environ)
    several = len(credentials) > 1
    made = []
    for position, credential in enumerate(credentials, start=1):
        id_ = f"{provider.id}-{position}" if several else provider.id
        name = f"{provider.name} {position}" if several else provider.name
        made.append(
            Resource(
                id=id_,
                name=name,
                pool_id=provider.pool_id,
                account_id=provider.account_id or id_,
                weight=provider.weight,
                base_url=provider.base_url,
                credential=credential,
                provider_id=provider.id,
            )
        )
    return tuple(made)


def _credentials(provider: Provider, environ: Mapping[str, str]) -> Sequence[str]:
    if provider.sealed:
        return [SEALED + token for token in provider.sealed]
    reference = provider.credential_ref
    found = VARIABLE.fullmatch(reference) if reference else None
    if reference is None or found is None:
        return []
    count = 1 if found[2] else keys_in(environ, found[1])
    if count > 1:
        return [f"{reference}#{position}" for position in range(1, count + 1)]
    return [reference]


def joined(
    ours: Sequence[Resource], registry: Registry, environ: Mapping[str, str]
) -> tuple[tuple[Resource, ...], tuple[str, ...]]:
    """Return all resources, those of the environment first, and duplicate ids. The
    first resource of an id is kept."""
    found: dict[str, Resource] = {}
    registered = (r for p in registry.providers for r in resources_of(p, environ))
    twice = [
        resource.id
        for resource in (*ours, *registered)
        if found.setdefault(resource.id, resource) is not resource
    ]
    return tuple(found.values()), tuple(twice)


def published_part(
    catalogue: Catalogue,
) -> tuple[tuple[Resource, ...], tuple[Alias, ...]]:
    """Return the resources and aliases of a catalogue that came from the registry."""
    registered = tuple(r for r in catalogue.resources if r.provider_id is not None)
    return registered, catalogue.aliases
