"""The settings of each service, in one place: the command line checks them all
before it starts anything, and may not import a service. Units are in the names."""

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from libs.common.bodies.redaction import BadPath, JsonPath, parse_paths
from libs.common.settings.base import (
    CommonSettings,
    DatabaseSettings,
    Seconds,
    SettingErrorCarrier,
    Settings,
)
from libs.common.settings.browsers import BrowserSettings
from libs.common.settings.upstreams import (
    EgressSettings,
    HttpUrl,
    ProviderSettings,
    SealingSettings,
)

Bytes = Annotated[int, Field(ge=0, le=2**40)]


class RoutingSettings(Settings):
    """What the routing functions remember, and for how long."""

    session_ttl_seconds: Seconds = Field(86_400, alias="PROXY_SESSION_TTL_SECONDS")
    affinity_ttl_seconds: Seconds = Field(86_400, alias="PROXY_AFFINITY_TTL_SECONDS")
    # How long a failing resource rests when the upstream does not say.
    cooldown_seconds: Seconds = Field(30, alias="PROXY_RESOURCE_COOLDOWN_SECONDS")


class GatewaySettings(
    BrowserSettings, ProviderSettings, EgressSettings, SealingSettings, RoutingSettings
):
    """The data plane."""

    # The whole of an upstream request, streams included.
    request_timeout_seconds: Seconds = Field(
        600.0, alias="PROXY_REQUEST_TIMEOUT_SECONDS"
    )
    connect_timeout_seconds: Seconds = Field(5.0, alias="PROXY_CONNECT_TIMEOUT_SECONDS")
    # Silence of an upstream before its answer begins, and in the midst of it.
    first_byte_timeout_seconds: Seconds = Field(
        600.0, alias="PROXY_FIRST_BYTE_TIMEOUT_SECONDS"
    )
    idle_timeout_seconds: Seconds = Field(300.0, alias="PROXY_IDLE_TIMEOUT_SECONDS")
    # The largest request body taken; beyond it 413.
    max_body_bytes: int = Field(
        67_108_864, ge=1, le=2**40, alias="PROXY_MAX_BODY_BYTES"
    )
    # Bytes of bodies above 64 KiB that a gateway holds at a time; beyond it 503.
    body_memory_bytes: int = Field(
        1_073_741_824, ge=1, le=2**50, alias="PROXY_BODY_MEMORY_BYTES"
    )
    # Captured bytes per body; 0 captures none.
    max_capture_bytes: Bytes = Field(2_000_000, alias="PROXY_MAX_CAPTURE_BYTES")
    # Paths taken out of bodies before they leave the gateway.
    redact: str | None = Field(None, alias="PROXY_REDACT")
    # Captured bodies in a gateway's memory, and in Redis: beyond that they are
    # dropped, and only a marker is kept.
    capture_queue_bytes: Bytes = Field(67_108_864, alias="PROXY_CAPTURE_QUEUE_BYTES")
    capture_backlog_bytes: Bytes = Field(
        268_435_456, alias="PROXY_CAPTURE_BACKLOG_BYTES"
    )
    # Tries of one request before the first byte, the first one included.
    max_attempts: int = Field(3, ge=1, le=10, alias="PROXY_MAX_ATTEMPTS")
    # When no key of the owning account works any more, send a request elsewhere
    # without the encrypted reasoning that only that account can read.
    replay_without_reasoning: bool = Field(
        False, alias="PROXY_REPLAY_WITHOUT_REASONING"
    )
    # On disk, for what is not in SQL yet; when it is full the oldest goes.
    journal_max_bytes: int = Field(
        1_073_741_824, ge=16_777_216, le=2**44, alias="PROXY_JOURNAL_MAX_BYTES"
    )
    heartbeat_seconds: Seconds = Field(1.0, alias="PROXY_HEARTBEAT_SECONDS")
    gateway_workers: int = Field(1, ge=1, le=256, alias="PROXY_GATEWAY_WORKERS")
    # Open connections per gateway, idle ones included; more have to wait.
    max_connections: int = Field(
        10_000, ge=16, le=1_000_000, alias="PROXY_MAX_CONNECTIONS"
    )
    # A client's: for a request's headers, between two kilobytes of its body, and
    # for the next request on an open connection.
    head_timeout_seconds: Seconds = Field(30.0, alias="PROXY_HEAD_TIMEOUT_SECONDS")
    body_timeout_seconds: Seconds = Field(60.0, alias="PROXY_BODY_TIMEOUT_SECONDS")
    keep_alive_seconds: Seconds = Field(120.0, alias="PROXY_KEEP_ALIVE_SECONDS")
    # Connections per gateway to one upstream address; more requests have to wait.
    # A client's connection needs one at a time, so by default none waits.
    max_upstream_connections: int = Field(
        default_factory=lambda known: known["max_connections"],
        ge=1,
        le=1_000_000,
        alias="PROXY_MAX_UPSTREAM_CONNECTIONS",
    )
    router_url: HttpUrl = Field(
        default_factory=lambda known: f"http://127.0.0.1:{known['router_port']}",
        alias="PROXY_ROUTER_URL",
    )
    # Without one of our keys /v1 answers 401.
    require_keys: bool = Field(False, alias="PROXY_REQUIRE_KEYS")
    # Where keys are required: ids that no key of this proxy minted, and endpoints
    # whose ids cannot be told apart.
    foreign_ids: Literal["refuse", "allow"] = Field("refuse", alias="PROXY_FOREIGN_IDS")
    # `responses-proxy gateway` runs ingest too, as its child.
    in_process_worker: bool = Field(False, alias="PROXY_IN_PROCESS_WORKER")

    @property
    def isolates_strictly(self) -> bool:
        """May a proxy key name only what its tenant made through this proxy?"""
        return self.require_keys and self.foreign_ids == "refuse"

    @property
    def upstream_connections_per_worker(self) -> int:
        """Each worker has its part, as it has of the clients' connections."""
        return math.ceil(self.max_upstream_connections / self.gateway_workers)

    @property
    def redacted_paths(self) -> tuple[JsonPath, ...]:
        """The paths of `redact`."""
        return parse_paths(self.redact or "")

    @field_validator("foreign_ids", mode="before")
    @classmethod
    def _lower_case(cls, value: str) -> str:
        return value.strip().lower()

    @field_validator("redact")
    @classmethod
    def _are_paths(cls, value: str | None) -> str | None:
        try:
            parse_paths(value or "")
        except BadPath as error:
            raise SettingErrorCarrier(
                "PROXY_REDACT",
                str(error),
                "Write a comma list such as input[*].content,metadata.email",
            ) from None
        return value


class RouterSettings(
    BrowserSettings,
    ProviderSettings,
    SealingSettings,
    RoutingSettings,
    DatabaseSettings,
):
    """Catalogue, reaper, admin API."""

    # A gateway without a heartbeat for this long is dead; its leases end.
    gateway_silence_seconds: Seconds = Field(5.0, alias="PROXY_GATEWAY_SILENCE_SECONDS")


class HealthSettings(CommonSettings, ProviderSettings, EgressSettings, SealingSettings):
    """Active checks of every resource."""

    enabled: bool = Field(True, alias="PROXY_HEALTH_CHECK_ENABLED")
    interval_seconds: Seconds = Field(30.0, alias="PROXY_HEALTH_CHECK_INTERVAL_SECONDS")
    timeout_seconds: Seconds = Field(10.0, alias="PROXY_HEALTH_CHECK_TIMEOUT_SECONDS")
    # Below the resource's base URL.
    path: str = Field(
        "models", alias="PROXY_HEALTH_CHECK_PATH", pattern=r"^[!-~]{1,200}$"
    )
    cooldown_seconds: Seconds = Field(30, alias="PROXY_RESOURCE_COOLDOWN_SECONDS")

    @field_validator("path")
    @classmethod
    def _below_base_url(cls, value: str) -> str:
        if "://" in value or ".." in value or "#" in value:
            raise SettingErrorCarrier(
                "PROXY_HEALTH_CHECK_PATH",
                "is no path below the upstream's base URL",
                "Write it like models",
            )
        return value.lstrip("/")


class IngestSettings(CommonSettings, DatabaseSettings):
    """Telemetry stream to SQL."""

    # Prefix of this consumer's name in the group; host and process are added.
    consumer: str = Field(
        "worker-1", alias="PROXY_TELEMETRY_CONSUMER", pattern=r"^[!-~]{1,100}$"
    )
    # A batch is written when it is this big or this old.
    batch_size: int = Field(500, ge=1, le=100_000, alias="PROXY_INGEST_BATCH_SIZE")
    batch_seconds: Seconds = Field(0.2, alias="PROXY_INGEST_BATCH_SECONDS")
    # Whole days that are kept in SQL, today not counted; unset keeps all.
    retention_days: int | None = Field(
        None, ge=1, le=36_500, alias="PROXY_RETENTION_DAYS"
    )
    # The operator's price list, for the view costs_by_day.
    prices_file: Path | None = Field(None, alias="PROXY_PRICES_FILE")
    # An entry another consumer has held for this long is taken over.
    claim_seconds: Seconds = Field(30.0, alias="PROXY_INGEST_CLAIM_SECONDS")


class UpSettings(Settings):
    """What only `responses-proxy up` reads."""

    # auto: the simulated upstream when there is no OpenAI key.
    simulate: Literal["auto", "true", "false"] = Field("auto", alias="PROXY_SIMULATE")

    @field_validator("simulate", mode="before")
    @classmethod
    def _any_case(cls, value: str) -> str:
        return value.strip().lower()


SERVICES: dict[str, type[Settings]] = {
    "gateway": GatewaySettings,
    "router": RouterSettings,
    "health": HealthSettings,
    "ingest": IngestSettings,
}
