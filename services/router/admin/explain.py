"""`POST /admin/route/explain`: where a request would go, and why. Asks the same
function as a gateway, without its effects."""

import json
from collections.abc import Sequence
from typing import Protocol

import msgspec
from falcon.asgi import Request, Response
from pydantic import ValidationError

from libs.common.bodies.hints import Hints, read_hints
from libs.common.contracts.catalogue import Catalogue
from libs.common.contracts.events import Candidate
from libs.common.routing.aliases import Way, session_within, ways
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
from services.router.admin.shapes import ExplainAsk, Explained, ExplainedHints
from services.router.errors import Problem

LARGEST_BODY = 1_048_576  # what the gateway forwards under /admin


class Routing(Protocol):
    async def explain(self, ask: Ask, owner: Owner | None) -> Explanation: ...


class Ownership(Protocol):
    async def owners(self, ids: Sequence[str]) -> dict[str, Owner]: ...

    async def session_owner(
        self, session_id: str, tenant: str = ""
    ) -> Owner | None: ...


class Configured(Protocol):
    """What gateways route by."""

    @property
    def catalogue(self) -> Catalogue: ...


class Explain:
    """Answers for a given method, path, headers and body."""

    def __init__(
        self, routing: Routing, store: Ownership, configured: Configured
    ) -> None:
        self._routing = routing
        self._store = store
        self._configured = configured

    async def on_post(self, req: Request, resp: Response) -> None:
        asked = _asked(await req.stream.read(LARGEST_BODY + 1))
        hints = _hints(asked)
        way = ways(self._configured.catalogue).get(hints.model or "")
        if way is not None and not way.open:
            raise _alias_leads_nowhere(way)
        if way is not None and not way.passes(hints.pool_id):
            raise _alias_elsewhere(way, hints.pool_id or "")
        try:
            explanation, in_sql = await self._explain(hints, way, asked.tenant)
        except UnknownPool as unknown:
            if way is not None:
                raise _alias_leads_nowhere(way) from None
            raise _unknown_pool(hints.pool_id or "", unknown.pools) from None
        except NoResources:
            raise _no_resources() from None
        answer = _explained(hints, way, explanation, looked_up_in_sql=in_sql)
        resp.text = answer.model_dump_json()
        resp.content_type = "application/json"

    async def _explain(
        self, hints: Hints, way: Way | None, tenant: str
    ) -> tuple[Explanation, bool]:
        """The explanation, and whether SQL had to be asked."""
        ask = _ask(hints, way, tenant)
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


def _asked(body: bytes) -> ExplainAsk:
    if len(body) > LARGEST_BODY:
        raise _bad(None, f"it has more than {LARGEST_BODY} bytes")
    try:
        return ExplainAsk.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _bad(".".join(map(str, first["loc"])) or None, first["msg"]) from None


def _hints(asked: ExplainAsk) -> Hints:
    headers = [(k.lower().encode(), v.encode()) for k, v in asked.headers.items()]
    body = b"" if asked.body is None else json.dumps(asked.body).encode()
    path = asked.path.removeprefix("/v1").partition("?")[0]
    return read_hints(path.encode(), headers, body)


def _ask(hints: Hints, way: Way | None, tenant: str) -> Ask:
    """As a gateway's first attempt; the draw is fixed, so that asking again says
    the same."""
    session, model = hints.session_id, hints.model
    named = session_digest(session, tenant) if session else ""
    if way is not None:
        named, model = session_within(session, way.pool, tenant), way.upstream_id
    return Ask(
        request_id="explain",
        decision_id="explain",
        attempt=1,
        gateway_id="explain",
        pool_id=way.pool if way is not None else hints.pool_id,
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
    hints: Hints, way: Way | None, explanation: Explanation, *, looked_up_in_sql: bool
) -> Explained:
    return Explained(
        resource_id=explanation.resource_id,
        reason=explanation.reason,
        status=explanation.status,
        half_open=explanation.trial,
        retry_after_ms=explanation.wait_ms or None,
        looked_up_in_sql=looked_up_in_sql,
        provider_id=way.provider_id if way is not None else None,
        upstream_model=way.upstream_id if way is not None else hints.model,
        hints=ExplainedHints(
            model=hints.model,
            session_id=hints.session_id,
            session_name=hints.session_name,
            pool_id=hints.pool_id,
            bound_ids=hints.bound_ids,
            account_bound=hints.account_bound,
        ),
        candidates=tuple(Candidate(**row) for row in explanation.candidates),
    )


def _bad(param: str | None, cause: str) -> Problem:
    where = f"{param}: " if param else ""
    return Problem(
        400,
        "invalid_request",
        'Send {"method": "POST", "path": "/v1/responses", "headers": {...}, '
        f'"body": {{...}}}} as JSON: {where}{cause}.',
        param=param,
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


def _alias_leads_nowhere(way: Way) -> Problem:
    return Problem(
        404,
        "model_not_found",
        f"The model alias {way.alias!r} leads to the provider {way.provider_id!r}, "
        "which has no resource: it is disabled or was deleted.",
        param="model",
    )


def _alias_elsewhere(way: Way, asked: str) -> Problem:
    return Problem(
        400,
        "model_not_in_pool",
        f"The model alias {way.alias!r} leads to the provider {way.provider_id!r}, "
        f"which is not in the pool {asked[:100]!r}.",
        param="model",
    )


def _no_resources() -> Problem:
    return Problem(
        503,
        "no_resources_configured",
        "No upstream key is configured. Add a provider (POST /admin/providers), or "
        "set OPENAI_API_KEY or OPENAI_API_KEYS and restart.",
    )
