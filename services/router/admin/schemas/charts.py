"""Charts over time."""

from typing import Literal

from pydantic import ConfigDict, Field, field_validator

from libs.common.contracts.catalogue import Frozen
from services.router.admin.schemas.pages import Parameter


class ChartFilter(Frozen):
    """Which requests, and how far back."""

    window: Literal["hour", "day", "week"] = Field(
        "hour", description="Steps of a minute, of 15 minutes, of an hour."
    )
    model: Parameter = Field(None, description="Only requests for this model.")
    resource_id: Parameter = Field(None, description="Only requests of this resource.")
    proxy_key_id: Parameter = Field(None, description="Only requests of this key.")
    team_id: Parameter = Field(
        None, description="Only requests of keys that this team has now."
    )

    @field_validator("model", "resource_id", "proxy_key_id", "team_id")
    @classmethod
    def _storable(cls, value: str | None) -> str | None:
        if value is not None and "\0" in value:
            raise ValueError("contains a NUL character, which no stored value has")
        return value


class Series(Frozen):
    """A value for each time. Times are of completed requests, and null if there were
    none. The cost is null if no request had a price."""

    requests: tuple[int, ...]
    failed: tuple[int, ...]
    cancelled: tuple[int, ...]
    interrupted: tuple[int, ...]
    failovers: tuple[int, ...]  # attempts after the first
    latency_p50_ms: tuple[float | None, ...]
    latency_p95_ms: tuple[float | None, ...]
    first_token_p50_ms: tuple[float | None, ...]
    first_token_p95_ms: tuple[float | None, ...]
    input_tokens: tuple[int, ...]
    cached_tokens: tuple[int, ...]
    output_tokens: tuple[int, ...]
    reasoning_tokens: tuple[int, ...]
    cost_usd: tuple[float | None, ...]  # in the currency of PROXY_PRICES_FILE


class Charts(Frozen):
    """Sums by the time when requests began."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    window: Literal["hour", "day", "week"]
    step_seconds: int
    since: str = Field(alias="from")
    times: tuple[int, ...]  # Unix seconds when each step begins
    series: Series
