"""`POST /admin/route/explain`: where a request would go, and why. Calls the routing
function that gateways call, without its effects."""

import json
from collections.abc import Sequence
from typing import Protocol

import msgspec

from libs.common.bodies.hints import Hints, read_hints
from libs.common.contracts.catalogue import Catalogue
from libs.common.contracts.events import Candidate
from libs.common.routing.aliases import AliasTarget, alias_targets, session_within
from libs.common.routing.types import (
    Ask,
    Explanation,
    NoResources,
    Owner,
    UnknownIds,
    UnknownPool,
    digest,
    model_digest,
    session_digest,
)
from services.router.admin.schemas.explain import (
    ExplainAsk,
    Explained,
    ExplainedHints,
)
from services.router.api.operation import Operation
from services.router.errors import Problem

LARGEST_BODY = 1_048_576  # the largest that the gateway forwards under /admin
_HINT = (
    'Send {"method": "POST", "path": "/v1/responses", "headers": {...}, "body": {...}} '
    "as JSON."
)


class Routing(Protocol):
    async def explain(self, ask: Ask, owner: Owner | None) -> Explanation: ...


class Ownership(Protocol):
    async def owners(self, ids: Sequence[str]) -> dict[str, Owner]: ...

    async def session_owner(
        self, session_id: str, tenant: str = ""
    ) -> Owner | None: ...


class Configured(Protocol):
    """The catalogue that gateways route by."""

    @property
    def catalogue(self) -> Catalogue: ...


class Explain:
    def __init__(
        self, routing: Routing, store: Ownership, configured: Configured
    ) -> None:
        self._routing = routing
        self._store = store
        self._configured = configured

    @Operation(
        returns=Explained,
        problems=(404, 503),
        largest_body=LARGEST_BODY,
        empty_body=b"",
        hint=_HINT,
    )
    async def on_post(self, body: ExplainAsk) -> Explained:
        """Where a request would go, and why. Has no effects."""
        hints = _hints(body)
        alias = alias_targets(self._configured.catalogue).get(hints.model or "")
        if alias is not None and not alias.open:
            raise _alias_leads_nowhere(alias)
        if alias is not None and not alias.passes(hints.pool_id):
            raise _alias_elsewhere(alias, hints.pool_id or "")
        try:
            explanation, in_sql = await self._explain(hints, alias, body.tenant)
        except UnknownPool as unknown:
            if alias is not None:
                raise _alias_leads_nowhere(alias) from None
            raise _unknown_pool(hints.pool_id or "", unknown.pools) from None
        except NoResources:
            raise _no_resources() from None
        return _explained(hints, alias, explanation, looked_up_in_sql=in_sql)

    async def _explain(
        self, hints: Hints, alias: AliasTarget | None, tenant: str
    ) -> tuple[Explanation, bool]:
        """The explanation, and whether it needed SQL."""
        ask = _ask(hints, alias, tenant)
        try:
            return await self._routing.explain(ask, None), False
        except UnknownIds:
            owner = await self._owner(hints, tenant)
            resolved = msgspec.structs.replace(ask, resolved=True)
            return await self._routing.explain(resolved, owner), True

    async def _owner(self, hints: Hints, tenant: str) -> Owner | None:
        found = await self._store.owners(hints.bound_ids) if hints.bound_ids else {}
        for id_ in hints.bound_ids:
            if id_ in found:
                return found[id_]
        if hints.account_bound and hints.session_id:
            return await self._store.session_owner(hints.session_id, tenant)
        return None


def _hints(given: ExplainAsk) -> Hints:
    headers = [(k.lower().encode(), v.encode()) for k, v in given.headers.items()]
    body = b"" if given.body is None else json.dumps(given.body).encode()
    path = given.path.removeprefix("/v1").partition("?")[0]
    return read_hints(path.encode(), headers, body)


def _ask(hints: Hints, alias: AliasTarget | None, tenant: str) -> Ask:
    """The request of a gateway's first attempt. The draw is fixed, so that repeated
    calls give the same explanation."""
    session, model = hints.session_id, hints.model
    named = session_digest(session, tenant) if session else ""
    if alias is not None:
        named, model = session_within(session, alias.pool, tenant), alias.upstream_id
    return Ask(
        request_id="explain",
        decision_id="explain",
        attempt=1,
        gateway_id="explain",
        pool_id=alias.pool if alias is not None else hints.pool_id,
        session_id=session,
        session=named,
        model=model_digest(model),
        bound=tuple(digest(id_) for id_ in hints.bound_ids),
        account_bound=hints.account_bound,
        tried=(),
        previous="",
        lease=b"",
        draw=0,
    )


def _explained(
    hints: Hints,
    alias: AliasTarget | None,
    explanation: Explanation,
    *,
    looked_up_in_sql: bool,
) -> Explained:
    return Explained(
        resource_id=explanation.resource_id,
        reason=explanation.reason,
        status=explanation.status,
        half_open=explanation.trial,
        retry_after_ms=explanation.wait_ms or None,
        looked_up_in_sql=looked_up_in_sql,
        provider_id=alias.provider_id if alias is not None else None,
        upstream_model=alias.upstream_id if alias is not None else hints.model,
        hints=ExplainedHints.model_validate(hints, from_attributes=True),
        candidates=tuple(Candidate(**row) for row in explanation.candidates),
    )


def _unknown_pool(asked: str, pools: Sequence[str]) -> Problem:
    known = ", ".join(pools) or "none"
    return Problem(
        400,
        "unknown_pool",
        f"There is no pool {asked[:100]!r}. Pools: {known}. Name one of them, or none "
        "to use all resources.",
        param="pool_id",
    )


def _alias_leads_nowhere(alias: AliasTarget) -> Problem:
    return Problem(
        404,
        "model_not_found",
        f"The model alias {alias.alias!r} is for the provider {alias.provider_id!r}, "
        "which has no resource: it is disabled or was deleted.",
        param="model",
    )


def _alias_elsewhere(alias: AliasTarget, asked: str) -> Problem:
    return Problem(
        400,
        "model_not_in_pool",
        f"The model alias {alias.alias!r} is for the provider {alias.provider_id!r}, "
        f"which is not in the pool {asked[:100]!r}. Name its pool, or none.",
        param="model",
    )


def _no_resources() -> Problem:
    return Problem(
        503,
        "no_resources_configured",
        "No upstream key is configured. Add a provider (POST /admin/providers), or "
        "set OPENAI_API_KEY or OPENAI_API_KEYS and restart.",
    )
