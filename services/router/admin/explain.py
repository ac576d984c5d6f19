"""`POST /admin/route/explain`: where a request would go, and why. Calls the routing
function that gateways call, without its effects."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from libs.common.bodies.hints import Hints, read_hints
from libs.common.contracts.catalogue import Catalogue
from libs.common.routing.aliases import (
    AliasTarget,
    Targets,
    alias_targets,
    at_first,
    home_of,
    in_order,
    session_within,
)
from libs.common.routing.types import (
    Ask,
    Explanation,
    Kept,
    NoResources,
    Owner,
    UnknownIds,
    UnknownPool,
    digest,
    model_digest,
    session_digest,
)
from services.router.admin.reasons import with_why
from services.router.admin.schemas.explain import (
    Candidate,
    ExplainAsk,
    Explained,
    ExplainedHints,
    ExplainedTarget,
)
from services.router.api.operation import Operation
from services.router.errors import Problem
from services.router.owners import Ownership

BYTES_PER_TOKEN = 4
LARGEST_BODY = 1_048_576  # the largest that the gateway forwards under /admin
_HINT = (
    'Send {"method": "POST", "path": "/v1/responses", "headers": {...}, "body": {...}} '
    "as JSON."
)


class Routing(Protocol):
    async def explain(self, ask: Ask, owner: Owner | None) -> Explanation: ...

    async def kept(self, sessions: Iterable[str], ids: Iterable[str]) -> list[Kept]: ...


class Configured(Protocol):
    """The catalogue that gateways route by."""

    @property
    def catalogue(self) -> Catalogue: ...


class _Found(NamedTuple):
    """`target`: that of the alias, if the model is one."""

    target: AliasTarget | None
    explanation: Explanation
    looked_up_in_sql: bool = False


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
        hint=_HINT,
    )
    async def on_post(self, body: ExplainAsk) -> Explained:
        """Where a request would go, and why. Has no effects."""
        hints = _hints(body)
        targets = alias_targets(self._configured.catalogue).get(hints.model or "")
        if targets is not None:
            return await self._explain_alias(targets, hints, body)
        found = await self._explain(hints, None, body)
        return _explained(hints, found)

    async def _explain_alias(
        self, targets: Targets, hints: Hints, body: ExplainAsk
    ) -> Explained:
        usable = [t for t in targets if t.open and t.passes(hints.pool_id)]
        if not usable and not targets[0].open:
            raise _alias_leads_nowhere(targets[0])
        if not usable:
            raise _alias_elsewhere(targets[0], hints.pool_id or "")
        ordered = await self._ordered(usable, hints, body.tenant)
        found = [await self._explain(hints, target, body) for target in ordered]
        shown = [_shown_target(each) for each in found]
        shown += [_unusable(t) for t in targets if t not in usable]
        # Keys that are cooling down serve only when no target has others.
        able = [f for f in found if f.explanation.status == "ok"]
        chosen = [f for f in able if f.explanation.reason != "panic"]
        return _explained(hints, (*chosen, *able, *found)[0], shown)

    async def _ordered(
        self, usable: Sequence[AliasTarget], hints: Hints, tenant: str
    ) -> Targets:
        """As a gateway orders them (services/gateway/proxy/attempts.py)."""
        session = hints.session_id
        seed = session_digest(session, tenant) if session else "explain"
        ordered = in_order(usable, seed)
        if len(ordered) == 1:
            return ordered
        named = [session_within(session, t.pool, tenant) for t in ordered if session]
        ids = [digest(id_) for id_ in hints.bound_ids]
        kept = await self._routing.kept(named, ids)
        home = home_of(ordered, kept[len(named) :], kept[: len(named)])
        return ordered if home is None else at_first(ordered, home)

    async def _explain(
        self, hints: Hints, target: AliasTarget | None, body: ExplainAsk
    ) -> _Found:
        ask = _ask(hints, target, body.tenant, _tokens(body, hints))
        try:
            return _Found(target, await self._routing.explain(ask, None))
        except UnknownIds:
            owner = await self._owner(hints, body.tenant)
            resolved = replace(ask, resolved=True)
            return _Found(target, await self._routing.explain(resolved, owner), True)
        except UnknownPool as unknown:
            if target is not None:
                raise _alias_leads_nowhere(target) from None
            raise _unknown_pool(hints.pool_id or "", unknown.pools) from None
        except NoResources:
            raise _no_resources() from None

    async def _owner(self, hints: Hints, tenant: str) -> Owner | None:
        found = await self._store.owners(hints.bound_ids) if hints.bound_ids else {}
        for id_ in hints.bound_ids:
            if id_ in found:
                return found[id_]
        if hints.account_bound and hints.session_id:
            return await self._store.session_owner(hints.session_id, tenant)
        return None


def _body(given: ExplainAsk) -> bytes:
    return b"" if given.body is None else json.dumps(given.body).encode()


def _tokens(given: ExplainAsk, hints: Hints) -> int:
    """As a gateway estimates them that has not learned anything of the model."""
    return len(_body(given)) // BYTES_PER_TOKEN + max(hints.max_output_tokens or 0, 0)


def _hints(given: ExplainAsk) -> Hints:
    headers = [(k.lower().encode(), v.encode()) for k, v in given.headers.items()]
    body = _body(given)
    path = given.path.removeprefix("/v1").partition("?")[0]
    return read_hints(path.encode(), headers, body)


def _ask(hints: Hints, alias: AliasTarget | None, tenant: str, tokens: int) -> Ask:
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
        tokens=tokens,
    )


def _shown_target(found: _Found) -> ExplainedTarget:
    target, explanation = found.target, found.explanation
    assert target is not None
    return ExplainedTarget(
        provider_id=target.provider_id,
        upstream_id=target.upstream_id,
        weight=target.weight,
        priority=target.priority,
        status=explanation.status,
        reason=explanation.reason,
        resource_id=explanation.resource_id,
        retry_after_ms=explanation.wait_ms or None,
    )


def _unusable(target: AliasTarget) -> ExplainedTarget:
    return ExplainedTarget(
        provider_id=target.provider_id,
        upstream_id=target.upstream_id,
        weight=target.weight,
        priority=target.priority,
        status="not_in_pool" if target.open else "no_resources",
    )


def _explained(
    hints: Hints, found: _Found, targets: Sequence[ExplainedTarget] = ()
) -> Explained:
    alias, explanation = found.target, found.explanation
    return Explained(
        resource_id=explanation.resource_id,
        reason=explanation.reason,
        status=explanation.status,
        half_open=explanation.trial,
        retry_after_ms=explanation.wait_ms or None,
        looked_up_in_sql=found.looked_up_in_sql,
        provider_id=alias.provider_id if alias is not None else None,
        upstream_model=alias.upstream_id if alias is not None else hints.model,
        targets=tuple(targets),
        hints=ExplainedHints.model_validate(hints, from_attributes=True),
        candidates=tuple(Candidate(**row) for row in with_why(explanation.candidates)),
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
