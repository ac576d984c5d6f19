"""The request event of a request under way, cheap to write. Pure.

Interpreted, because mypyc compiles no structs (docs/adr/0011-mypyc.md)."""

import msgspec

from libs.common.contracts.prices import PriceList
from libs.common.upstream_answers.verdicts import Verdict


class Record(msgspec.Struct, omit_defaults=True, gc=False):
    """The fields of `contracts.RequestEvent`; a test compares them."""

    id: str
    created_at_ms: int
    method: str
    path: str
    gateway_id: str
    completed_at_ms: int | None = None
    session_id: str | None = None
    session_name: str | None = None
    pool_id: str | None = None
    resource_id: str | None = None
    account_id: str | None = None
    proxy_key_id: str | None = None
    team_id: str | None = None
    model: str | None = None
    upstream_model: str | None = None
    transport: str = "http"
    status_code: int | None = None
    outcome: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    attempts: int = 0
    latency_ms: float | None = None
    upstream_ms: float | None = None
    first_token_ms: float | None = None
    overhead_ms: float | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    total_tokens: int | None = None
    usage_state: str = "unknown"
    request_bytes: int = 0
    response_bytes: int = 0
    service_tier: str | None = None
    response_id: str | None = None
    previous_response_id: str | None = None
    cost_nanos: int | None = None
    minted: tuple[str, ...] = ()

    def price(self, prices: PriceList) -> int | None:
        """What it cost, in billionths of a dollar, once its usage is known."""
        if self.cost_nanos is None and self.usage_state == "final":
            self.cost_nanos = prices.nanos_of(self)
        return self.cost_nanos


NEUTRAL = Verdict(kind="neutral")


# The JSON of the request event. A lease carries it too: the reaper makes the request
# event of it when the gateway dies.
request_event = lease_record = msgspec.json.Encoder().encode
