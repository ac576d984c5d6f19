"""`/admin/providers`: the registry of providers. A key is sealed here, before anything
else sees it, and is never part of a response."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol, Self

from pydantic import SecretStr

from libs.common.contracts.catalogue import Resource
from libs.common.contracts.events import Row
from libs.common.providers.azure import AZURE, EXAMPLE, address_problem
from libs.common.providers.registry import (
    Provider,
    joined,
    provider_of,
    registry_of,
    resources_of,
)
from libs.common.providers.sealing import Sealer
from libs.common.store.interface import Actor
from services.router.admin.registry.destinations import DestinationCheck
from services.router.admin.schemas.registry import (
    ProviderAsk,
    ProviderChange,
    ProviderRow,
    ProvidersList,
    auth_type_of,
    keys_of,
)
from services.router.api.operation import Operation, invalid
from services.router.errors import Problem, found

_found = partial(found, "provider_not_found", "/admin/providers")
_HIDDEN = frozenset({"api_key_sealed"})


class Rows(Protocol):
    """The part of the store used here. Raises `StoreAway`."""

    def by(self, actor: Actor) -> Self: ...

    async def providers(self) -> list[Row]: ...

    async def provider(self, id_: str) -> Row | None: ...

    async def add_provider(
        self, fields: Mapping[str, Any], at: datetime
    ) -> Row | None: ...

    async def change_provider(
        self, id_: str, fields: Mapping[str, Any], at: datetime
    ) -> Row | None: ...

    async def delete_provider(self, id_: str) -> bool: ...


class Publisher(Protocol):
    """Publishes a change to the gateways, at once or when Redis is back. Never
    raises."""

    async def changed(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ProviderContext:
    """The router's configuration that providers depend on."""

    sealer: Sealer
    environ: Mapping[str, str]
    ours: Sequence[Resource]  # from the environment
    base_url: str  # for providers of type openai without one
    destinations: DestinationCheck


class _Providers:
    def __init__(
        self, rows: Rows, publisher: Publisher, context: ProviderContext
    ) -> None:
        self._rows = rows
        self._publisher = publisher
        self._context = context


class Providers(_Providers):
    @Operation(returns=ProvidersList, problems=(503,))
    async def on_get(self) -> dict[str, Any]:
        """Providers, without their keys."""
        rows = await self._rows.providers()
        data = [shown(row, self._context.environ) for row in rows]
        return {"data": data, "next_cursor": None}

    @Operation(returns=ProviderRow, status=201, problems=(409, 503))
    async def on_post(self, body: ProviderAsk, actor: Actor) -> dict[str, Any]:
        """Register a provider. Its key is sealed and never shown."""
        fields = _fields(body.model_dump(), body.api_key, self._context)
        fields["name"] = fields["name"] or body.id
        row = {"base_url": None, "api_key_sealed": None, **fields}
        row["base_url"] = base_url_of(body.provider_type, body.base_url, self._context)
        row["auth_type"] = auth_type_of(body.provider_type, body.auth_type)
        if row["api_key_sealed"] is None and row["credential_ref"] is None:
            raise keyless()
        others = await self._rows.providers()
        if any(other["id"] == body.id for other in others):
            raise _exists(body.id)
        refuse_taken_ids(row, others, self._context)
        await self._context.destinations.refuse(row["base_url"], row["credential_ref"])
        rows = self._rows.by(actor)
        stored = await rows.add_provider(row, datetime.now(UTC))
        if stored is None:
            raise _exists(body.id)
        await self._publisher.changed()
        return shown(stored, self._context.environ)


class OneProvider(_Providers):
    @Operation(returns=ProviderRow, problems=(404, 503))
    async def on_get(self, provider_id: str) -> dict[str, Any]:
        """One provider."""
        row = await known_provider(self._rows, provider_id)
        return shown(row, self._context.environ)

    @Operation(returns=ProviderRow, problems=(404, 409, 503))
    async def on_patch(
        self, provider_id: str, body: ProviderChange, actor: Actor
    ) -> dict[str, Any]:
        """Change a provider, or replace its key; effective within seconds."""
        before = await known_provider(self._rows, provider_id)
        sent = body.model_dump(exclude_unset=True)
        fields = _fields(sent, body.api_key, self._context)
        _adapt_to_type(fields, before, self._context)
        after = {**before, **fields}
        _refuse_to_move_keys(before, fields)
        if after["api_key_sealed"] is None and after["credential_ref"] is None:
            raise keyless()
        others = await self._rows.providers()
        refuse_taken_ids(after, others, self._context)
        sends = {"base_url", "credential_ref", "api_key_sealed"} & fields.keys()
        if sends or fields.get("enabled"):
            url, reference = after["base_url"], after["credential_ref"]
            await self._context.destinations.refuse(url, reference)
        rows = self._rows.by(actor)
        now = datetime.now(UTC)
        row = _found(await rows.change_provider(provider_id, fields, now))
        await self._publisher.changed()
        return shown(row, self._context.environ)

    @Operation(returns=ProviderRow, problems=(404, 409, 503))
    async def on_delete(self, provider_id: str, actor: Actor) -> dict[str, Any]:
        """Delete a provider that no model alias uses."""
        row = await known_provider(self._rows, provider_id)
        if not await self._rows.by(actor).delete_provider(provider_id):
            await known_provider(self._rows, provider_id)
            raise Problem(
                409,
                "provider_in_use",
                "Model aliases use this provider. Delete them first (GET "
                "/admin/models lists them), or disable the provider with "
                '{"enabled": false}.',
            )
        await self._publisher.changed()
        return shown(row, self._context.environ)


def _fields(
    sent: Mapping[str, Any], api_key: SecretStr | None, context: ProviderContext
) -> dict[str, Any]:
    """The fields that were sent, as columns. An inline key and a reference replace
    each other."""
    fields = {name: value for name, value in sent.items() if name != "api_key"}
    if api_key is not None:
        fields["api_key_sealed"] = sealed(api_key, context.sealer)
        fields["credential_ref"] = None
    elif fields.get("credential_ref") is not None or "api_key" in sent:
        fields["api_key_sealed"] = None
    return fields


def sealed(api_key: SecretStr, sealer: Sealer) -> str:
    """The keys as they are stored. Raises a `Problem` if they cannot be sealed."""
    if not sealer.able:
        raise Problem(
            400,
            "encryption_key_missing",
            "An api_key is sealed before it is stored, which needs "
            "PROXY_SECRET_ENCRYPTION_KEY. Set it for the router, the gateways and the "
            "health service, and restart them; or put the key into one of their "
            'environment variables and send credential_ref "env:NAME".',
            param="api_key",
        )
    return ",".join(sealer.seal(key) for key in keys_of(api_key))


def base_url_of(
    provider_type: str, base_url: str | None, context: ProviderContext
) -> str:
    """A provider's address. Raises a `Problem` if it has none, or another than its
    type has."""
    if base_url is None:
        if provider_type != "openai":
            cause = f"a provider of type {provider_type} needs one"
            example = f", such as {EXAMPLE}" if provider_type == AZURE else ""
            raise invalid("base_url", cause + example, ProviderAsk)
        return context.base_url
    problem = address_problem(base_url) if provider_type == AZURE else None
    if problem is not None:
        raise invalid("base_url", problem, ProviderAsk)
    return base_url


def _adapt_to_type(
    fields: dict[str, Any], before: Row, context: ProviderContext
) -> None:
    """Complete a change by what depends on the type: the address, and how the key is
    sent. Raises a `Problem` if the address does not fit."""
    kind = str(fields.get("provider_type", before["provider_type"]))
    changed = kind != before["provider_type"]
    if changed or "base_url" in fields:
        url = fields.get("base_url", before["base_url"])
        fields["base_url"] = base_url_of(kind, url, context)
    if changed or "auth_type" in fields:
        fields["auth_type"] = auth_type_of(kind, fields.get("auth_type"))


def keyless() -> Problem:
    cause = "a provider needs an api_key or a credential_ref"
    return invalid("api_key", cause, ProviderAsk)


def _refuse_to_move_keys(before: Row, fields: Mapping[str, Any]) -> None:
    """Otherwise a caller who does not know the key could have it sent to an address of
    their own."""
    if fields.get("base_url", before["base_url"]) == before["base_url"]:
        return
    for kept, name in (
        ("api_key_sealed", "api_key"),
        ("credential_ref", "credential_ref"),
    ):
        if before[kept] and kept not in fields:
            cause = f"the stored {name} was given for another address; send it again"
            raise invalid("base_url", cause, ProviderChange)


def refuse_taken_ids(row: Row, others: Sequence[Row], context: ProviderContext) -> None:
    """Raises a `Problem` if another resource already has the id of one of `row`."""
    rest = registry_of((o for o in others if o["id"] != row["id"]), ())
    everyone, _ = joined(context.ours, rest, context.environ)
    ids = {resource.id for resource in everyone}
    for resource in resources_of(_enabled(row), context.environ):
        if resource.id in ids:
            raise Problem(
                409,
                "resource_id_taken",
                f"The resource id {resource.id!r}, which this provider's keys would "
                "get, is already taken. Choose another provider id.",
                param="id",
            )


def _enabled(row: Row) -> Provider:
    return replace(provider_of(row), enabled=True)


def shown(row: Row, environ: Mapping[str, str]) -> dict[str, Any]:
    """A row without its keys."""
    visible = {name: value for name, value in row.items() if name not in _HIDDEN}
    resources = resources_of(provider_of(row), environ)
    return {
        **visible,
        "api_key_configured": row["api_key_sealed"] is not None,
        "resources": [resource.id for resource in resources],
    }


async def known_provider(rows: Rows, id_: str) -> Row:
    """Raises a `Problem` if there is no such provider."""
    return _found(await rows.provider(id_))


def _exists(id_: str) -> Problem:
    return Problem(
        409,
        "provider_exists",
        f"The provider {id_!r} already exists. PATCH /admin/providers/{id_} changes "
        "it.",
        param="id",
    )
