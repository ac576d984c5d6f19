"""The settings of each service. They are here because the command line validates all of
them before it starts a process and must not import services. Names carry units."""

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
    """Lifetimes of routing state in Redis."""

    session_ttl_seconds: Seconds = Field(86_400, alias="PROXY_SESSION_TTL_SECONDS")
    affinity_ttl_seconds: Seconds = Field(86_400, alias="PROXY_AFFINITY_TTL_SECONDS")
    # The cooldown of a failing resource if the upstream names no time.
    cooldown_seconds: Seconds = Field(30, alias="PROXY_RESOURCE_COOLDOWN_SECONDS")


class GatewaySettings(
    BrowserSettings, ProviderSettings, EgressSettings, SealingSettings, RoutingSettings
):
    """Settings of the gateway."""

    # A whole upstream request, including its stream.
    request_timeout_seconds: Seconds = Field(
        600.0, alias="PROXY_REQUEST_TIMEOUT_SECONDS"
    )
    connect_timeout_seconds: Seconds = Field(5.0, alias="PROXY_CONNECT_TIMEOUT_SECONDS")
    # Silence of an upstream before its response begins, and during the response.
    first_byte_timeout_seconds: Seconds = Field(
        600.0, alias="PROXY_FIRST_BYTE_TIMEOUT_SECONDS"
    )
    idle_timeout_seconds: Seconds = Field(300.0, alias="PROXY_IDLE_TIMEOUT_SECONDS")
    # The largest accepted request body; a larger one is answered with 413.
    max_body_bytes: int = Field(
        67_108_864, ge=1, le=2**40, alias="PROXY_MAX_BODY_BYTES"
    )
    # Total size of the bodies above 64 KiB that a gateway holds; beyond it, 503.
    body_memory_bytes: int = Field(
        1_073_741_824, ge=1, le=2**50, alias="PROXY_BODY_MEMORY_BYTES"
    )
    # Captured bytes per body; 0 disables capture.
    max_capture_bytes: Bytes = Field(2_000_000, alias="PROXY_MAX_CAPTURE_BYTES")
    # JSON paths to redact in captured bodies before they leave the gateway.
    redact: str | None = Field(None, alias="PROXY_REDACT")
    # Captured bodies held in memory by a gateway, and held in Redis. Bodies beyond
    # these limits are dropped, and a marker is stored instead.
    capture_queue_bytes: Bytes = Field(67_108_864, alias="PROXY_CAPTURE_QUEUE_BYTES")
    capture_backlog_bytes: Bytes = Field(
        268_435_456, alias="PROXY_CAPTURE_BACKLOG_BYTES"
    )
    # Attempts of one request before its first byte is relayed.
    max_attempts: int = Field(3, ge=1, le=10, alias="PROXY_MAX_ATTEMPTS")
    # If no key of the owning account works, send the request to another account
    # without the encrypted reasoning, which only the first account can decrypt.
    replay_without_reasoning: bool = Field(
        False, alias="PROXY_REPLAY_WITHOUT_REASONING"
    )
    # Journal on disk of records not yet in SQL; when full, the oldest are dropped.
    journal_max_bytes: int = Field(
        1_073_741_824, ge=16_777_216, le=2**44, alias="PROXY_JOURNAL_MAX_BYTES"
    )
    heartbeat_seconds: Seconds = Field(1.0, alias="PROXY_HEARTBEAT_SECONDS")
    gateway_workers: int = Field(1, ge=1, le=256, alias="PROXY_GATEWAY_WORKERS")
    # Client connections per gateway, including idle ones; others wait.
    max_connections: int = Field(
        10_000, ge=16, le=1_000_000, alias="PROXY_MAX_CONNECTIONS"
    )
    # Client timeouts: for the headers of a request, for each kilobyte of its body, and
    # for the next request on an open connection.
    head_timeout_seconds: Seconds = Field(30.0, alias="PROXY_HEAD_TIMEOUT_SECONDS")
    body_timeout_seconds: Seconds = Field(60.0, alias="PROXY_BODY_TIMEOUT_SECONDS")
    keep_alive_seconds: Seconds = Field(120.0, alias="PROXY_KEEP_ALIVE_SECONDS")
    # Connections per gateway to one upstream address; further requests wait. A client
    # connection needs one at a time, so by default no request waits.
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
    # Answer 401 to requests below /v1 without a proxy key.
    require_keys: bool = Field(False, alias="PROXY_REQUIRE_KEYS")
    # If keys are required: upstream ids that no proxy key created, and endpoints whose
    # ids cannot be attributed to a key.
    foreign_ids: Literal["refuse", "allow"] = Field("refuse", alias="PROXY_FOREIGN_IDS")
    # `responses-proxy gateway` also runs ingest, as a child process.
    in_process_worker: bool = Field(False, alias="PROXY_IN_PROCESS_WORKER")

    @property
    def isolates_strictly(self) -> bool:
        """Whether a proxy key may use only ids that its tenant created here."""
        return self.require_keys and self.foreign_ids == "refuse"

    @property
    def upstream_connections_per_worker(self) -> int:
        """The share of each worker in `max_upstream_connections`."""
        return math.ceil(self.max_upstream_connections / self.gateway_workers)

    @property
    def redacted_paths(self) -> tuple[JsonPath, ...]:
        """The parsed paths of `redact`."""
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
                "Use a comma-separated list such as input[*].content,metadata.email",
            ) from None
        return value


class RouterSettings(
    BrowserSettings,
    ProviderSettings,
    SealingSettings,
    RoutingSettings,
    DatabaseSettings,
):
    """Settings of the router."""

    # A gateway is dead, and its leases expire, after this long without a heartbeat.
    gateway_silence_seconds: Seconds = Field(5.0, alias="PROXY_GATEWAY_SILENCE_SECONDS")


class HealthSettings(CommonSettings, ProviderSettings, EgressSettings, SealingSettings):
    """Settings of active health checks."""

    enabled: bool = Field(True, alias="PROXY_HEALTH_CHECK_ENABLED")
    interval_seconds: Seconds = Field(30.0, alias="PROXY_HEALTH_CHECK_INTERVAL_SECONDS")
    timeout_seconds: Seconds = Field(10.0, alias="PROXY_HEALTH_CHECK_TIMEOUT_SECONDS")
    # Relative to the base URL of the resource.
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
                "is not a path below the base URL of the upstream",
                "Use a relative path such as models",
            )
        return value.lstrip("/")


class IngestSettings(CommonSettings, DatabaseSettings):
    """Settings of ingest."""

    # Prefix of the consumer name; host name and process id are appended.
    consumer: str = Field(
        "worker-1", alias="PROXY_TELEMETRY_CONSUMER", pattern=r"^[!-~]{1,100}$"
    )
    # A batch is written when it reaches this size or age.
    batch_size: int = Field(500, ge=1, le=100_000, alias="PROXY_INGEST_BATCH_SIZE")
    batch_seconds: Seconds = Field(0.2, alias="PROXY_INGEST_BATCH_SECONDS")
    # Whole days to keep in SQL besides today; unset keeps all.
    retention_days: int | None = Field(
        None, ge=1, le=36_500, alias="PROXY_RETENTION_DAYS"
    )
    # The price list for the view costs_by_day.
    prices_file: Path | None = Field(None, alias="PROXY_PRICES_FILE")
    # A stream entry pending at another consumer for this long is claimed.
    claim_seconds: Seconds = Field(30.0, alias="PROXY_INGEST_CLAIM_SECONDS")


class UpSettings(Settings):
    """Settings that only `responses-proxy up` reads."""

    # auto: use the simulated upstream if there is no OpenAI key.
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
