"""`POST /admin/providers/test` and `/admin/models/test`: does the upstream accept this
key, and does it list this model? The health service asks; keys reach it sealed."""

import json
from dataclasses import replace
from typing import Any, Protocol

from libs.common.providers.registry import Provider, provider_of, resources_of
from services.router.admin.registry.models import Rows as ModelRows
from services.router.admin.registry.models import known_model
from services.router.admin.registry.providers import (
    ProviderContext,
    Rows,
    base_url_of,
    keyless,
    known_provider,
    sealed,
)
from services.router.admin.schemas.registry import (
    ModelTestAsk,
    ModelTested,
    ProviderTestAsk,
    ProviderTested,
    auth_type_of,
)
from services.router.api.operation import Operation, invalid


class Examiner(Protocol):
    """Queries upstreams. Raises a `Problem` if it cannot."""

    async def examine(self, wanted: str = "") -> Any: ...


class AllRows(Rows, ModelRows, Protocol):
    """Rows of providers and models."""


class _Test:
    def __init__(
        self, rows: AllRows, examiner: Examiner, context: ProviderContext
    ) -> None:
        self._rows = rows
        self._examiner = examiner
        self._context = context

    async def _examined(
        self, provider: Provider, model: str | None = None
    ) -> list[dict[str, Any]]:
        """The upstream's verdict on each key of a provider, enabled or not. Raises a
        `Problem` if its keys must not be sent there."""
        refuse = self._context.destinations.refuse
        await refuse(provider.base_url, provider.credential_ref)
        enabled = replace(provider, enabled=True)
        resources = resources_of(enabled, self._context.environ)
        wanted = {
            "base_url": provider.base_url,
            "keys": [[resource.id, resource.credential] for resource in resources],
            "model": model,
            "auth_type": provider.auth_type,
        }
        return list(await self._examiner.examine(json.dumps(wanted)))


class ProviderTest(_Test):
    @Operation(returns=ProviderTested, problems=(404, 503))
    async def on_post(self, body: ProviderTestAsk) -> dict[str, Any]:
        """Ask a provider, stored or not, for its models with each of its keys."""
        if body.id is not None and body.model_fields_set == {"id"}:
            provider = provider_of(await known_provider(self._rows, body.id))
        else:
            provider = self._unsaved(body)
        results = await self._examined(provider)
        return {
            "ok": all(result["ok"] for result in results),
            "base_url": provider.base_url,
            "results": results,
        }

    def _unsaved(self, given: ProviderTestAsk) -> Provider:
        keys: str | None = None
        if given.api_key is not None:
            keys = sealed(given.api_key, self._context.sealer)
        elif given.credential_ref is None:
            raise keyless()
        url = base_url_of(given.provider_type, given.base_url, self._context)
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
            auth_type=auth_type_of(given.provider_type, given.auth_type),
        )


class ModelTest(_Test):
    @Operation(returns=ModelTested, problems=(404, 503))
    async def on_post(self, body: ModelTestAsk) -> dict[str, Any]:
        """Do an alias's providers list its models?"""
        targets = await self._targets(body)
        results, details = [], []
        for provider_id, upstream_id in targets:
            provider = provider_of(await known_provider(self._rows, provider_id))
            found = await self._examined(provider, upstream_id)
            detail = _detail(found, upstream_id)
            details.append(f"{provider_id}: {detail}" if len(targets) > 1 else detail)
            results += found
        return {
            "ok": all(result["ok"] and result["lists_model"] for result in results),
            "alias": body.alias,
            "provider_id": targets[0][0],
            "upstream_id": targets[0][1],
            "detail": "; ".join(details),
            "results": results,
        }

    async def _targets(self, given: ModelTestAsk) -> list[tuple[str, str]]:
        """Providers and their names of the model."""
        if given.alias is not None and given.model_fields_set == {"alias"}:
            row = await known_model(self._rows, given.alias)
            return [
                (each["provider_id"], each["upstream_id"]) for each in row["targets"]
            ]
        if given.provider_id is None or given.upstream_id is None:
            cause = "send alias, or provider_id and upstream_id"
            raise invalid(None, cause, ModelTestAsk)
        return [(given.provider_id, given.upstream_id)]


def _detail(results: list[dict[str, Any]], model: str) -> str:
    failed = next((r for r in results if not r["ok"]), None)
    if failed is not None:
        return f"{failed['key']}: {failed['detail']}"
    if all(r["lists_model"] for r in results):
        return f"the provider lists {model}"
    without = ", ".join(r["key"] for r in results if not r["lists_model"])
    return f"the provider does not list {model} to: {without}"
