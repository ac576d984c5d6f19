"""A request to explain, and its explanation."""

from typing import Any, Literal

from pydantic import Field, create_model

from libs.common.contracts import events
from libs.common.contracts.catalogue import Frozen
from services.router.admin.reasons import CODES
from services.router.admin.schemas.pages import model_of


class Why(Frozen):
    """Why a resource was passed over."""

    code: Literal[CODES]  # type: ignore[valid-type]
    until_ms: int | None  # Unix ms when that ends


Candidate = create_model(
    "Candidate",
    __base__=model_of(events.Candidate),
    __doc__=events.Candidate.__doc__,
    why=(Why | None, None),  # `refused` as a code
)


class ExplainAsk(Frozen):
    """A request as a client would send it to the gateway."""

    method: Literal["GET", "POST", "DELETE", "PATCH"] = "POST"
    path: str = Field(default="/v1/responses", max_length=4096)
    # team:ID, key:ID, or empty: the tenant that a named session belongs to.
    tenant: str = Field(default="", max_length=200)
    headers: dict[str, str] = Field(default_factory=dict)
    body: Any = None


class ExplainedHints(Frozen):
    """What routing reads from the request."""

    model: str | None
    session_id: str | None
    session_name: str | None
    pool_id: str | None
    bound_ids: tuple[str, ...]  # ids that an upstream account created, newest first
    account_bound: bool  # contains encrypted content


class ExplainedTarget(Frozen):
    """A target of a model alias. `status`: as that of an explanation, for this target
    alone; or not_in_pool, no_resources (its provider has none)."""

    provider_id: str
    upstream_id: str
    weight: float
    priority: int
    status: str
    reason: str | None = None
    resource_id: str | None = None
    retry_after_ms: int | None = None


class Explained(Frozen):
    """Where the request would go now. Nothing was counted or stored.

    status: ok, or why nothing can serve it: no_capacity, busy (what could serve it is
    at its limit, so it would wait in a queue), owner_limited (its account is rate
    limited), owner_gone (its account has no working key left).
    """

    resource_id: str | None
    reason: str
    status: str
    half_open: bool  # it would be the single trial after a cooldown
    retry_after_ms: int | None
    looked_up_in_sql: bool  # Redis did not know its ids
    provider_id: str | None  # that of the target, if the model is an alias
    upstream_model: str | None  # the model name that the upstream would receive
    # Of the alias, in the order in which this request would try them; a request without
    # a session has an order of its own.
    targets: tuple[ExplainedTarget, ...] = ()
    hints: ExplainedHints
    candidates: tuple[Candidate, ...]  # all of the pool, best first
