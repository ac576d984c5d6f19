"""Registered providers and model aliases, and the resources derived from them.
Pure: the environment is an argument."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from libs.common.contracts.catalogue import Alias, Catalogue, ModelTarget, Resource
from libs.common.contracts.events import Row
from libs.common.contracts.prices import Price
from libs.common.providers.azure import AZURE, resource_account
from libs.common.providers.credentials import SEALED
from libs.common.providers.key_headers import BEARER
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
    provider_type: str = "openai"
    auth_type: str = BEARER


@dataclass(frozen=True, slots=True)
class Registry:
    """All providers, and the enabled aliases."""

    providers: tuple[Provider, ...] = ()
    aliases: tuple[Alias, ...] = ()
    prices: tuple[Price, ...] = ()


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
        provider_type=row["provider_type"],
        auth_type=row["auth_type"],
    )


def registry_of(
    providers: Iterable[Row], models: Iterable[Row], prices: tuple[Price, ...] = ()
) -> Registry:
    """Build the registry from the rows of both tables, and the prices that count."""
    return Registry(
        tuple(map(provider_of, providers)),
        tuple(_alias_of(row) for row in models if row["enabled"]),
        prices,
    )


def _alias_of(row: Row) -> Alias:
    targets = row["targets"]
    return Alias(
        alias=row["alias"],
        provider_id=row["provider_id"],
        upstream_id=row["upstream_id"],
        targets=[ModelTarget(**each) for each in targets] if len(targets) > 1 else (),
    )


def targets_of(row: Mapping[str, Any], stored: Any) -> list[dict[str, Any]]:
    """The targets of a model alias. `stored`: the column. It does not count if its
    first target is not that of the row: an older router, which does not know the
    column, changed the row."""
    first = {"provider_id": row["provider_id"], "upstream_id": row["upstream_id"]}
    if stored and all(stored[0][name] == first[name] for name in first):
        return list(stored)
    return [{**first, "weight": 1.0, "priority": 0}]


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
                account_id=provider.account_id or _account_of(provider) or id_,
                weight=provider.weight,
                base_url=provider.base_url,
                credential=credential,
                provider_id=provider.id,
                auth_type=provider.auth_type,
            )
        )
    return tuple(made)


def _account_of(provider: Provider) -> str | None:
    """The account of an Azure provider that names none: its Azure resource, which is
    in the address. Its two keys read the same state and share the limits of its
    deployments, and no header says so."""
    if provider.provider_type != AZURE:
        return None
    return resource_account(provider.base_url)


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
