"""`/admin/providers`: the registry of providers. A key comes in and never goes out:
it is sealed here, before anything else sees it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from falcon.asgi import Request, Response
from pydantic import SecretStr

from libs.common.contracts.catalogue import Resource
from libs.common.contracts.events import Row
from libs.common.providers.registry import (
    Provider,
    joined,
    provider_of,
    registry_of,
    resources_of,
)
from libs.common.providers.sealing import Sealer
from services.router.admin.destinations import DestinationCheck
from services.router.admin.registry_shapes import (
    ProviderAsk,
    ProviderChange,
    keys_of,
)
from services.router.admin.request_body import asked, bad
from services.router.errors import Problem

WHAT = "provider"
_HIDDEN = frozenset({"api_key_sealed"})


class Rows(Protocol):
    """What of the store is asked for here; raises `StoreAway`."""

    async def providers(self) -> list[Row]: ...

    async def provider(self, id_: str) -> Row | None: ...

    async def add_provider(
        self, fields: Mapping[str, Any], at: datetime
    ) -> Row | None: ...

    async def change_provider(
        self, id_: str, fields: Mapping[str, Any], at: datetime
    ) -> Row | None: ...

    async def delete_provider(self, id_: str) -> bool: ...


class Told(Protocol):
    """Who brings a change to the gateways. Never raises."""

    async def changed(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a provider is understood with: the router's own configuration."""

    sealer: Sealer
    environ: Mapping[str, str]
    ours: Sequence[Resource]  # of the environment
    base_url: str  # of providers of type openai that name none
    destinations: DestinationCheck


class Providers:
    """All of them."""

    def __init__(self, rows: Rows, told: Told, around: Surroundings) -> None:
        self._rows = rows
        self._told = told
        self._around = around

    async def on_get(self, _: Request, resp: Response) -> None:
        rows = await self._rows.providers()
        data = [shown(row, self._around.environ) for row in rows]
        resp.media = {"data": data, "next_cursor": None}

    async def on_post(self, req: Request, resp: Response) -> None:
        given = await asked(req, ProviderAsk, WHAT)
        fields = _fields(given.model_dump(), given.api_key, self._around)
        fields["name"] = fields["name"] or given.id
        row = {"base_url": None, "api_key_sealed": None, **fields}
        row["base_url"] = base_url_of(given.provider_type, given.base_url, self._around)
        if row["api_key_sealed"] is None and row["credential_ref"] is None:
            raise keyless()
        others = await self._rows.providers()
        if any(other["id"] == given.id for other in others):
            raise _exists(given.id)
        refuse_taken_ids(row, others, self._around)
        await self._around.destinations.refuse(row["base_url"], row["credential_ref"])
        stored = await self._rows.add_provider(row, _now())
        if stored is None:
            raise _exists(given.id)
        # Published when the answer leaves, or as soon as Redis is back.
        await self._told.changed()
        resp.status = 201
        resp.media = shown(stored, self._around.environ)


class OneProvider:
    """One of them."""

    def __init__(self, rows: Rows, told: Told, around: Surroundings) -> None:
        self._rows = rows
        self._told = told
        self._around = around

    async def on_get(self, _: Request, resp: Response, provider_id: str) -> None:
        row = await known_provider(self._rows, provider_id)
        resp.media = shown(row, self._around.environ)

    async def on_patch(self, req: Request, resp: Response, provider_id: str) -> None:
        given = await asked(req, ProviderChange, WHAT)
        before = await known_provider(self._rows, provider_id)
        sent = given.model_dump(exclude_unset=True)
        fields = _fields(sent, given.api_key, self._around)
        after = {**before, **fields}
        if "base_url" in fields:
            url = base_url_of(after["provider_type"], fields["base_url"], self._around)
            fields["base_url"] = after["base_url"] = url
            _refuse_to_move_keys(before, fields)
        if after["api_key_sealed"] is None and after["credential_ref"] is None:
            raise keyless()
        others = await self._rows.providers()
        refuse_taken_ids(after, others, self._around)
        sends = {"base_url", "credential_ref", "api_key_sealed"} & fields.keys()
        if sends or fields.get("enabled"):
            url, reference = after["base_url"], after["credential_ref"]
            await self._around.destinations.refuse(url, reference)
        row = await self._rows.change_provider(provider_id, fields, _now())
        if row is None:
            raise not_found()
        await self._told.changed()
        resp.media = shown(row, self._around.environ)

    async def on_delete(self, _: Request, resp: Response, provider_id: str) -> None:
        row = await known_provider(self._rows, provider_id)
        if not await self._rows.delete_provider(provider_id):
            await known_provider(self._rows, provider_id)
            raise Problem(
                409,
                "provider_in_use",
                "Model aliases lead to this provider. Delete them first (GET "
                "/admin/models lists them), or disable the provider with "
                '{"enabled": false}.',
            )
        await self._told.changed()
        resp.media = shown(row, self._around.environ)


def _fields(
    sent: Mapping[str, Any], api_key: SecretStr | None, around: Surroundings
) -> dict[str, Any]:
    """What was sent, as columns. A key given inline and a reference replace each
    other."""
    fields = {name: value for name, value in sent.items() if name != "api_key"}
    if api_key is not None:
        fields["api_key_sealed"] = sealed(api_key, around.sealer)
        fields["credential_ref"] = None
    elif fields.get("credential_ref") is not None or "api_key" in sent:
        fields["api_key_sealed"] = None
    return fields


def sealed(api_key: SecretStr, sealer: Sealer) -> str:
    """The keys as they are stored. Raises a `Problem` when they cannot be sealed."""
    if not sealer.able:
        raise Problem(
            400,
            "encryption_key_missing",
            "An api_key is sealed before it is stored, and PROXY_SECRET_ENCRYPTION_KEY "
            "is not set. Set it for the router, the gateways and the health service, "
            "and restart them; or put the key into a variable of theirs and send "
            'credential_ref "env:NAME".',
            param="api_key",
        )
    return ",".join(sealer.seal(key) for key in keys_of(api_key))


def base_url_of(provider_type: str, base_url: str | None, around: Surroundings) -> str:
    """Where a provider is. Raises a `Problem` when nothing says so."""
    if base_url is not None:
        return base_url
    if provider_type == "custom":
        raise bad("base_url", "a provider of type custom needs one", WHAT)
    return around.base_url


def keyless() -> Problem:
    return bad("api_key", "a provider needs an api_key, or a credential_ref", WHAT)


def _refuse_to_move_keys(before: Row, fields: Mapping[str, Any]) -> None:
    """Whoever may change an address, but does not know the key, must not have it sent
    to an address of his."""
    if fields["base_url"] == before["base_url"]:
        return
    for kept, name in (
        ("api_key_sealed", "api_key"),
        ("credential_ref", "credential_ref"),
    ):
        if before[kept] and kept not in fields:
            raise bad(
                "base_url",
                f"the stored {name} was given for another address; send it again",
                WHAT,
            )


def refuse_taken_ids(row: Row, others: Sequence[Row], around: Surroundings) -> None:
    """Raises a `Problem` when a resource of `row` has the id of another's."""
    rest = registry_of((o for o in others if o["id"] != row["id"]), ())
    everyone, _ = joined(around.ours, rest, around.environ)
    ids = {resource.id for resource in everyone}
    for resource in resources_of(_enabled(row), around.environ):
        if resource.id in ids:
            raise Problem(
                409,
                "resource_id_taken",
                f"This provider's keys would be the resource {resource.id!r}, which "
                "there is already. Choose another id.",
                param="id",
            )


def _enabled(row: Row) -> Provider:
    return replace(provider_of(row), enabled=True)


def shown(row: Row, environ: Mapping[str, str]) -> dict[str, Any]:
    """A row as it may be seen."""
    visible = {name: value for name, value in row.items() if name not in _HIDDEN}
    resources = resources_of(provider_of(row), environ)
    return {
        **visible,
        "api_key_configured": row["api_key_sealed"] is not None,
        "resources": [resource.id for resource in resources],
    }


async def known_provider(rows: Rows, id_: str) -> Row:
    """Raises a `Problem` when there is none."""
    row = await rows.provider(id_)
    if row is None:
        raise not_found()
    return row


def not_found() -> Problem:
    return Problem(
        404,
        "provider_not_found",
        "There is no such provider. GET /admin/providers lists them.",
    )


def _exists(id_: str) -> Problem:
    return Problem(
        409,
        "provider_exists",
        f"There is a provider {id_!r} already. PATCH /admin/providers/{id_} changes "
        "it.",
        param="id",
    )


def _now() -> datetime:
    return datetime.now(UTC)
