"""The settings of each service. They are here because the command line validates all of
them before it starts a process and must not import services. Names carry units."""

import base64
import math
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from libs.common.bodies.redaction import BadPath, JsonPath, parse_paths
from libs.common.settings.base import (
    AnyCase,
    CommonSettings,
    DatabaseSettings,
    Seconds,
    Settings,
)
from libs.common.settings.browsers import BrowserSettings
from libs.common.settings.messages import SettingErrorCarrier
from libs.common.settings.tracing import TracingSettings
from libs.common.settings.upstreams import (
    EgressSettings,
    HttpUrl,
    ProviderSettings,
    SealingSettings,
)

Bytes = Annotated[int, Field(ge=0, le=2**40)]


SHORTEST_SECRET = 24  # of what signs alerts
QUEUE_S = 5.0  # how long a request may wait, if nothing is configured


def _is_signing_secret(secret: str) -> bool:
    encoded = secret.removeprefix("whsec_")
    if encoded == secret:
        return len(secret) >= SHORTEST_SECRET
    try:
        return SHORTEST_SECRET <= len(base64.b64decode(encoded, validate=True)) <= 64
    except ValueError:
        return False


def _networks(listed: str | None) -> tuple[IPv4Network | IPv6Network, ...]:
    entries = (entry.strip() for entry in (listed or "").split(","))
    return tuple(ip_network(entry) for entry in entries if entry)


class RoutingSettings(Settings):
    """Lifetimes of routing state in Redis."""

    session_ttl_seconds: Seconds = Field(86_400, alias="PROXY_SESSION_TTL_SECONDS")
    affinity_ttl_seconds: Seconds = Field(86_400, alias="PROXY_AFFINITY_TTL_SECONDS")
    # The cooldown of a failing resource if the upstream names no time.
    cooldown_seconds: Seconds = Field(30, alias="PROXY_RESOURCE_COOLDOWN_SECONDS")
    # Limits that upstreams name of an account affect the choice of its keys.
    limit_aware: bool = Field(True, alias="PROXY_LIMIT_AWARE")
    # Requests in flight on each resource, over all gateways; unset: no limit.
    max_in_flight: int | None = Field(
        None, ge=1, le=1_000_000, alias="PROXY_MAX_IN_FLIGHT"
    )
    # How long a request may wait for a limit to end; 0: not at all. Unset: 5 s, but
    # not for a limit of the only account that can serve it.
    queue_max_seconds: float | None = Field(
        None, ge=0, le=3_600, alias="PROXY_QUEUE_MAX_SECONDS"
    )
    # Between heartbeats of a gateway. Routers wait for them after a loss of Redis.
    heartbeat_seconds: Seconds = Field(1.0, alias="PROXY_HEARTBEAT_SECONDS")

    @property
    def queue_ms(self) -> int:
        """How long a request may wait."""
        seconds = self.queue_max_seconds
        return int((QUEUE_S if seconds is None else seconds) * 1000)

    @property
    def bound_queue_ms(self) -> int:
        """The same for a limit of the only account that can serve it."""
        return int((self.queue_max_seconds or 0) * 1000)


class GatewaySettings(
    BrowserSettings,
    ProviderSettings,
    EgressSettings,
    SealingSettings,
    RoutingSettings,
    TracingSettings,
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
    # Longest silence towards a client within a stream or on a WebSocket, before a
    # comment or a ping; 0: no limit, so that clients get the upstream's bytes only.
    client_keepalive_seconds: float = Field(
        0.0, ge=0, le=86_400, alias="PROXY_CLIENT_KEEPALIVE_SECONDS"
    )
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
    # Balancers whose X-Forwarded-For tells a client's address: networks.
    trusted_proxies: str | None = Field(None, alias="PROXY_TRUSTED_PROXIES")
    # If keys are required: upstream ids that no proxy key created, and endpoints whose
    # ids cannot be attributed to a key.
    foreign_ids: Annotated[Literal["refuse", "allow"], AnyCase] = Field(
        "refuse", alias="PROXY_FOREIGN_IDS"
    )
    # Log one line for each request.
    access_log: bool = Field(False, alias="PROXY_ACCESS_LOG")
    # `responses-proxy gateway` also runs ingest, as a child process.
    in_process_worker: bool = Field(False, alias="PROXY_IN_PROCESS_WORKER")

    @property
    def isolates_strictly(self) -> bool:
        """Whether a proxy key may use only ids that its tenant created here."""
        return self.require_keys and self.foreign_ids == "refuse"

    @property
    def trusted_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The parsed networks of `trusted_proxies`."""
        return _networks(self.trusted_proxies)

    @property
    def upstream_connections_per_worker(self) -> int:
        """The share of each worker in `max_upstream_connections`."""
        return math.ceil(self.max_upstream_connections / self.gateway_workers)

    @property
    def redacted_paths(self) -> tuple[JsonPath, ...]:
        """The parsed paths of `redact`."""
        return parse_paths(self.redact or "")

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: str | None) -> str | None:
        try:
            _networks(value)
        except ValueError as error:
            raise SettingErrorCarrier(
                "PROXY_TRUSTED_PROXIES",
                f"is not a list of networks: {str(error)[:100]}",
                "Use a comma-separated list such as 10.0.0.0/8,192.168.1.5",
            ) from None
        return value

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
        "models",
        alias="PROXY_HEALTH_CHECK_PATH",
        pattern=r"^[!-~]{1,200}$",
        description="a path of up to 200 ASCII characters without spaces",
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


class IngestSettings(CommonSettings, DatabaseSettings, EgressSettings):
    """Settings of ingest."""

    # Prefix of the consumer name; host name and process id are appended.
    consumer: str = Field(
        "worker-1",
        alias="PROXY_TELEMETRY_CONSUMER",
        pattern=r"^[!-~]{1,100}$",
        description="a name of up to 100 ASCII characters without spaces",
    )
    # A batch is written when it reaches this size or age.
    batch_size: int = Field(1000, ge=1, le=100_000, alias="PROXY_INGEST_BATCH_SIZE")
    batch_seconds: Seconds = Field(0.2, alias="PROXY_INGEST_BATCH_SECONDS")
    # Whole days to keep in SQL besides today; unset keeps all.
    retention_days: int | None = Field(
        None, ge=1, le=36_500, alias="PROXY_RETENTION_DAYS"
    )
    # The price list for the view costs_by_day.
    prices_file: Path | None = Field(None, alias="PROXY_PRICES_FILE")
    # Where alerts of budgets and upstream keys are sent, and what signs them.
    alert_webhook_url: HttpUrl | None = Field(
        None, alias="PROXY_ALERT_WEBHOOK_URL", repr=False
    )
    alert_webhook_secret: SecretStr | None = Field(
        None, alias="PROXY_ALERT_WEBHOOK_SECRET"
    )
    # A stream entry pending at another consumer for this long is claimed.
    claim_seconds: Seconds = Field(30.0, alias="PROXY_INGEST_CLAIM_SECONDS")

    @field_validator("alert_webhook_secret")
    @classmethod
    def _signs(cls, value: SecretStr | None) -> SecretStr | None:
        secret = value.get_secret_value() if value else None
        if secret is not None and not _is_signing_secret(secret):
            raise SettingErrorCarrier(
                "PROXY_ALERT_WEBHOOK_SECRET",
                "is neither whsec_ and the base64 of 24 to 64 bytes, nor a text of at "
                "least 24 characters",
                "Generate one with: echo whsec_$(openssl rand -base64 32)",
            )
        return value

    @model_validator(mode="after")
    def _alerts_are_signed(self) -> Self:
        if self.alert_webhook_url is not None and self.alert_webhook_secret is None:
            raise SettingErrorCarrier(
                "PROXY_ALERT_WEBHOOK_URL",
                "is set without PROXY_ALERT_WEBHOOK_SECRET, which signs alerts",
                "Set both, or none",
            )
        return self


class UpSettings(Settings):
    """Settings that only `responses-proxy up` reads."""

    # auto: use the simulated upstream if there is no OpenAI key.
    simulate: Annotated[Literal["auto", "true", "false"], AnyCase] = Field(
        "auto", alias="PROXY_SIMULATE"
    )


SERVICES: dict[str, type[Settings]] = {
    "gateway": GatewaySettings,
    "router": RouterSettings,
    "health": HealthSettings,
    "ingest": IngestSettings,
}
