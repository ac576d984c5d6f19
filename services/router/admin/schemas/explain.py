"""A request to explain, and its explanation."""

from typing import Any, Literal

from pydantic import Field

from libs.common.contracts.catalogue import Frozen
from libs.common.contracts.events import Candidate


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


class Explained(Frozen):
    """Where the request would go now. Nothing was counted or stored.

    status: ok, or why nothing can serve it: no_capacity, owner_limited (its account
    is rate limited), owner_gone (its account has no working key left).
    """

    resource_id: str | None
    reason: str
    status: str
    half_open: bool  # it would be the single trial after a cooldown
    retry_after_ms: int | None
    looked_up_in_sql: bool  # Redis did not know its ids
    provider_id: str | None  # the provider, if the model is an alias
    upstream_model: str | None  # the model name that the upstream would receive
    hints: ExplainedHints
    candidates: tuple[Candidate, ...]  # all of the pool, best first
