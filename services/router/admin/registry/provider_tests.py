"""`POST /admin/providers/test` and `/admin/models/test`: does the upstream take this
key, and has it this model? The health service asks; keys travel sealed to it."""

import json
from dataclasses import replace
from typing import Any, Protocol

from falcon.asgi import Request, Response

from libs.common.providers.registry import Provider, provider_of, resources_of
from services.router.admin.registry.models import Rows as ModelRows
from services.router.admin.registry.models import known_model
from services.router.admin.registry.providers import (
    Rows,
    Surroundings,
    base_url_of,
    keyless,
    known_provider,
    sealed,
)
from services.router.admin.request_body import asked, bad
from services.router.admin.schemas.registry import ModelTestAsk, ProviderTestAsk


class Asks(Protocol):
    """Who asks upstreams. Raises a `Problem` when nobody does."""

    async def examine(self, wanted: str = "") -> Any: ...


class ProviderTest:
    def __init__(self, rows: Rows, asks: Asks, around: Surroundings) -> None:
        self._rows = rows
        self._asks = asks
        self._around = around

    async def on_post(self, req: Request, resp: Response) -> None:
        given = await asked(req, ProviderTestAsk, "provider's test")
        if given.id is not None and given.model_fields_set == {"id"}:
            provider = provider_of(await known_provider(self._rows, given.id))
        else:
            provider = self._unsaved(given)
        results = await examined(self._asks, provider, self._around)
        resp.media = {
            "ok": all(result["ok"] for result in results),
            "base_url": provider.base_url,
            "results": results,
        }

    def _unsaved(self, given: ProviderTestAsk) -> Provider:
        keys: str | None = None
        if given.api_key is not None:
            keys = sealed(given.api_key, self._around.sealer)
        elif given.credential_ref is None:
            raise keyless()
        url = base_url_of(given.provider_type, given.base_url, self._around)
        return Provider(
            id=given.id or "key",
            name="",
            base_url=url,
            sealed=tuple(keys.split(",")) if keys else (),
            credential_ref=given.credential_ref,
            pool_id=None,
            account_id=None,
            weight=1.0,
            enabled=True,
        )


class AllRows(Rows, ModelRows, Protocol):
    """Of providers and models."""


class ModelTest:
    def __init__(self, rows: AllRows, asks: Asks, around: Surroundings) -> None:
        self._rows = rows
        self._asks = asks
        self._around = around

    async def on_post(self, req: Request, resp: Response) -> None:
        given = await asked(req, ModelTestAsk, "model's test")
        if given.alias is not None and given.model_fields_set == {"alias"}:
            row = await known_model(self._rows, given.alias)
            provider_id, upstream_id = row["provider_id"], row["upstream_id"]
        elif given.provider_id is None or given.upstream_id is None:
            raise bad(
                None, "send alias, or provider_id and upstream_id", "model's test"
            )
        else:
            provider_id, upstream_id = given.provider_id, given.upstream_id
        row = await known_provider(self._rows, provider_id)
        results = await examined(
            self._asks, provider_of(row), self._around, upstream_id
        )
        ok = all(result["ok"] and result["lists_model"] for result in results)
        resp.media = {
            "ok": ok,
            "alias": given.alias,
            "provider_id": provider_id,
            "upstream_id": upstream_id,
            "detail": _detail(results, upstream_id),
            "results": results,
        }


async def examined(
    asks: Asks, provider: Provider, around: Surroundings, model: str | None = None
) -> list[dict[str, Any]]:
    """What the upstream says to each key of a provider, disabled or not. Raises a
    `Problem` when its keys must not be sent there."""
    await around.destinations.refuse(provider.base_url, provider.credential_ref)
    resources = resources_of(replace(provider, enabled=True), around.environ)
    wanted = {
        "base_url": provider.base_url,
        "keys": [[resource.id, resource.credential] for resource in resources],
        "model": model,
    }
    return list(await asks.examine(json.dumps(wanted)))


def _detail(results: list[dict[str, Any]], model: str) -> str:
    failed = next((r for r in results if not r["ok"]), None)
    if failed is not None:
        return f"{failed['key']}: {failed['detail']}"
    if all(r["lists_model"] for r in results):
        return f"the provider lists {model}"
    without = ", ".join(r["key"] for r in results if not r["lists_model"])
    return f"the provider does not list {model} to: {without}"
