"""Every variable of every service: accepted values, and the one-line error for
others."""

import base64
from pathlib import Path
from typing import Any

import certifi
import pytest
from cryptography.fernet import Fernet

from libs.common.errors import SettingError
from libs.common.redis.keys import DEFAULT, Keys
from libs.common.settings.base import CommonSettings, DatabaseSettings, Settings
from libs.common.settings.services import (
    SERVICES,
    GatewaySettings,
    RouterSettings,
    UpSettings,
)
from libs.common.settings.tracing import TracingSettings

MODELS: tuple[type[Settings], ...] = (*SERVICES.values(), UpSettings)
ALL = sorted({variable for model in MODELS for variable in model.variables()})
# The same in each process, because it is part of test names.
FERNET = base64.urlsafe_b64encode(bytes(range(32))).decode()

# Variable -> accepted values and their results.
GOOD: dict[str, list[tuple[str, Any]]] = {
    "DATABASE_URL": [("postgres://u@h/d", "postgres://u@h/d")],
    "SERVICE_DATABASE_URL": [("postgresql://h/d", "postgresql://h/d")],
    "PROXY_DATABASE_URL": [
        ("postgresql://u:p@h:5432/d?sslmode=require",) * 2,
    ],
    "PROXY_SQLITE_URL": [("sqlite:////var/lib/x.db", "sqlite:////var/lib/x.db")],
    "PROXY_ADMIN_TOKEN": [("a-long-token", "a-long-token")],
    "PROXY_CREDENTIAL_VARIABLES": [("ACME_*, LAB_KEY",) * 2],
    "PROXY_PROVIDER_PRIVATE_ADDRESSES": [("false", False)],
    "PROXY_ALLOW_OPEN_ADMIN": [("true", True), ("0", False)],
    "PROXY_ALLOWED_HOSTS": [("a.example,*.b.example", "a.example,*.b.example")],
    "PROXY_ALLOWED_ORIGINS": [("https://a.example", "https://a.example")],
    "PROXY_AFFINITY_TTL_SECONDS": [("60", 60.0)],
    "PROXY_CAPTURE_BACKLOG_BYTES": [("1000", 1000)],
    "PROXY_CAPTURE_QUEUE_BYTES": [("0", 0)],
    "PROXY_CLIENT_KEEPALIVE_SECONDS": [("0", 0.0), ("15", 15.0)],
    "PROXY_CONNECT_TIMEOUT_SECONDS": [("0.5", 0.5)],
    "PROXY_DATA_DIR": [("/var/lib/proxy", Path("/var/lib/proxy"))],
    "PROXY_DRAIN_SECONDS": [("3", 3.0)],
    "PROXY_FIRST_BYTE_TIMEOUT_SECONDS": [("20", 20.0)],
    "PROXY_FOREIGN_IDS": [("refuse", "refuse"), ("Allow", "allow")],
    "PROXY_GATEWAY_SILENCE_SECONDS": [("8", 8.0)],
    "PROXY_GATEWAY_WORKERS": [("4", 4)],
    "PROXY_HEALTH_CHECK_ENABLED": [("false", False), ("True", True)],
    "PROXY_HEALTH_CHECK_INTERVAL_SECONDS": [("5", 5.0)],
    "PROXY_HEALTH_CHECK_PATH": [("models?limit=1", "models?limit=1"), ("/me", "me")],
    "PROXY_HEALTH_CHECK_TIMEOUT_SECONDS": [("1.5", 1.5)],
    "PROXY_HEALTH_PORT": [("9002", 9002)],
    "PROXY_HEARTBEAT_SECONDS": [("0.5", 0.5)],
    "PROXY_IDLE_TIMEOUT_SECONDS": [("30", 30.0)],
    "PROXY_HOST": [("0.0.0.0", "0.0.0.0"), ("::1", "::1")],
    "PROXY_INGEST_BATCH_SECONDS": [("1", 1.0)],
    "PROXY_INTERNAL_HOST": [("10.0.0.5", "10.0.0.5")],
    "PROXY_LIMIT_AWARE": [("false", False), ("1", True)],
    "PROXY_ACCESS_LOG": [("false", False), ("true", True)],
    "PROXY_INGEST_BATCH_SIZE": [("1000", 1000)],
    "PROXY_INGEST_CLAIM_SECONDS": [("10", 10.0)],
    "PROXY_INGEST_PORT": [("9003", 9003)],
    "PROXY_IN_PROCESS_WORKER": [("false", False), ("true", True)],
    "PROXY_JOURNAL_MAX_BYTES": [("16777216", 16_777_216)],
    "PROXY_LOG_LEVEL": [("DEBUG", "debug")],
    "PROXY_MAX_ATTEMPTS": [("1", 1), ("10", 10)],
    "PROXY_REPLAY_WITHOUT_REASONING": [("true", True), ("false", False)],
    "PROXY_MAX_BODY_BYTES": [("1024", 1024)],
    "PROXY_BODY_MEMORY_BYTES": [("1024", 1024)],
    "PROXY_MAX_CAPTURE_BYTES": [("0", 0)],
    "PROXY_MAX_CONNECTIONS": [("64", 64)],
    "PROXY_HEAD_TIMEOUT_SECONDS": [("0.5", 0.5)],
    "PROXY_BODY_TIMEOUT_SECONDS": [("0.5", 0.5)],
    "PROXY_KEEP_ALIVE_SECONDS": [("75", 75.0)],
    "PROXY_MAX_IN_FLIGHT": [("1", 1), ("500", 500)],
    "PROXY_MAX_UPSTREAM_CONNECTIONS": [("1", 1), ("20000", 20_000)],
    "PROXY_PORT": [("9000", 9000)],
    "PROXY_REDACT": [("input[*].content, metadata.email",) * 2],
    "PROXY_REDIS_NAMESPACE": [("rpx", "rpx"), ("b_2", "b_2")],
    "PROXY_REDIS_URL": [
        ("rediss://:p@h:6380/1",) * 2,
        ("unix:///run/r.sock",) * 2,
        ("redis+sentinel://:p@a:26379,b/mymaster/0",) * 2,
        ("redis+cluster://:p@a:7000,b",) * 2,
        (f"rediss://h/0?ssl_ca_certs={certifi.where()}",) * 2,
    ],
    "PROXY_REQUEST_TIMEOUT_SECONDS": [("12.5", 12.5)],
    "PROXY_RETENTION_DAYS": [("90", 90)],
    "PROXY_QUEUE_MAX_SECONDS": [("0", 0.0), ("2.5", 2.5)],
    # Only together; compared by their own tests.
    "PROXY_ALERT_WEBHOOK_URL": [],
    "PROXY_ALERT_WEBHOOK_SECRET": [],
    "PROXY_PRICES_FILE": [("/etc/prices.toml", Path("/etc/prices.toml"))],
    "PROXY_REQUIRE_KEYS": [("true", True), ("false", False)],
    "PROXY_RESOURCE_COOLDOWN_SECONDS": [("1", 1.0)],
    "PROXY_ROUTER_PORT": [("9001", 9001)],
    "PROXY_ROUTER_URL": [("http://router:8001/", "http://router:8001")],
    "PROXY_SECRET_ENCRYPTION_KEY": [],  # compared by its own test
    "PROXY_SESSION_TTL_SECONDS": [("60", 60.0)],
    "PROXY_SIMULATE": [("TRUE", "true"), ("auto", "auto")],
    "PROXY_STRICT_ENV": [("true", True)],
    "PROXY_TELEMETRY_CONSUMER": [("host-2", "host-2")],
    "PROXY_PUBLIC_URL": [("https://proxy.example/", "https://proxy.example")],
    "PROXY_TELEMETRY_GROUP": [("g", "g")],
    "PROXY_TELEMETRY_STREAM": [("{rpx}:events", "{rpx}:events")],
    "PROXY_TRUSTED_PROXIES": [("10.0.0.0/8, ::1", "10.0.0.0/8, ::1")],
    "PROXY_UPSTREAM_BASE_URL": [
        ("https://eu.api.openai.com/v1/", "https://eu.api.openai.com/v1"),
        ("http://[::1]:9000/v1", "http://[::1]:9000/v1"),
    ],
    "PROXY_UPSTREAM_CA_FILE": [(certifi.where(), Path(certifi.where()))],
    "OTEL_SDK_DISABLED": [("true", True)],
    "OTEL_TRACES_EXPORTER": [("otlp",) * 2, ("none",) * 2],
    "OTEL_EXPORTER_OTLP_ENDPOINT": [("http://collector:4318",) * 2],
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": [("https://collector/v1/traces",) * 2],
    # The rest: test_tracing.py.
    **{variable: [] for variable in TracingSettings.variables()[4:]},
}

SECONDS = ("0", "-1", "nan", "inf", "soon", "99999999999")
PORTS = ("0", "65536", "http", "80.5", "-1")
FLAGS = ("maybe", "2")
POSTGRES = (
    "mysql://u:hush@h/d",
    "hush",
    "postgresql://u:hush@h:port/d",
    "postgresql://u:hu@hush@h/d",
)
BAD: dict[str, tuple[str, ...]] = {
    "DATABASE_URL": POSTGRES,
    "SERVICE_DATABASE_URL": POSTGRES,
    "PROXY_DATABASE_URL": POSTGRES,
    "PROXY_SQLITE_URL": ("sqlite://x", "sqlite:///", "/var/x.db"),
    "PROXY_ADMIN_TOKEN": ("hush",),
    "PROXY_CREDENTIAL_VARIABLES": ("*", "OPENAI_API_KEY", "A B", "a-b"),
    "PROXY_PROVIDER_PRIVATE_ADDRESSES": FLAGS,
    "PROXY_ALLOW_OPEN_ADMIN": FLAGS,
    "PROXY_ALLOWED_HOSTS": ("http://a.example", "a b", "*", "a,*.", "a/b"),
    "PROXY_ALLOWED_ORIGINS": ("*", "a.example", "null", "https://a.example/b"),
    "PROXY_PUBLIC_URL": ("proxy.example", "ftp://proxy.example", "https://a:b@c.d"),
    "PROXY_AFFINITY_TTL_SECONDS": SECONDS,
    "PROXY_CAPTURE_BACKLOG_BYTES": ("-1", "much"),
    "PROXY_CAPTURE_QUEUE_BYTES": ("-1", "64MB"),
    "PROXY_CLIENT_KEEPALIVE_SECONDS": ("-1", "soon", "86401", "nan"),
    "PROXY_CONNECT_TIMEOUT_SECONDS": SECONDS,
    "PROXY_DRAIN_SECONDS": SECONDS,
    "PROXY_FIRST_BYTE_TIMEOUT_SECONDS": SECONDS,
    "PROXY_FOREIGN_IDS": ("deny", "true"),
    "PROXY_GATEWAY_SILENCE_SECONDS": SECONDS,
    "PROXY_GATEWAY_WORKERS": ("0", "1.5", "many", "1000"),
    "PROXY_HEALTH_CHECK_ENABLED": FLAGS,
    "PROXY_LIMIT_AWARE": FLAGS,
    "PROXY_HEALTH_CHECK_INTERVAL_SECONDS": SECONDS,
    "PROXY_HEALTH_CHECK_PATH": ("http://x/models", "../admin", "a b", "mödels"),
    "PROXY_HEALTH_CHECK_TIMEOUT_SECONDS": SECONDS,
    "PROXY_HEALTH_PORT": PORTS,
    "PROXY_HEARTBEAT_SECONDS": SECONDS,
    "PROXY_IDLE_TIMEOUT_SECONDS": SECONDS,
    "PROXY_HOST": ("http://127.0.0.1", "a b", "127.0.0.1/8"),
    "PROXY_INGEST_BATCH_SECONDS": SECONDS,
    "PROXY_INTERNAL_HOST": ("http://127.0.0.1", "a b"),
    "PROXY_ACCESS_LOG": FLAGS,
    "PROXY_INGEST_BATCH_SIZE": ("0", "-5", "all"),
    "PROXY_INGEST_CLAIM_SECONDS": SECONDS,
    "PROXY_INGEST_PORT": PORTS,
    "PROXY_IN_PROCESS_WORKER": FLAGS,
    "PROXY_JOURNAL_MAX_BYTES": ("16777215", "1GiB"),
    "PROXY_LOG_LEVEL": ("loud",),
    "PROXY_MAX_ATTEMPTS": ("0", "11", "three"),
    "PROXY_REPLAY_WITHOUT_REASONING": ("maybe",),
    "PROXY_MAX_BODY_BYTES": ("0", "64MB"),
    "PROXY_BODY_MEMORY_BYTES": ("0", "1GB"),
    "PROXY_MAX_CAPTURE_BYTES": ("-1", "2MB"),
    "PROXY_MAX_CONNECTIONS": ("0", "lots"),
    "PROXY_HEAD_TIMEOUT_SECONDS": ("0", "-1", "soon"),
    "PROXY_BODY_TIMEOUT_SECONDS": ("0", "-1", "soon"),
    "PROXY_KEEP_ALIVE_SECONDS": ("0", "-1", "never"),
    "PROXY_MAX_IN_FLIGHT": ("0", "2.5", "-1", "lots"),
    "PROXY_MAX_UPSTREAM_CONNECTIONS": ("0", "lots"),
    "PROXY_PORT": PORTS,
    "PROXY_RETENTION_DAYS": ("0", "-1", "ever"),
    "PROXY_QUEUE_MAX_SECONDS": ("-1", "soon", "3601", "nan", "inf"),
    "PROXY_REDACT": ("a..b", "input[", "input[x]", "a b", ".a", "[-1]"),
    "PROXY_REDIS_NAMESPACE": ("B", "2b", "_b", "a-b", "a b", "{b}", "b" * 32, "ü"),
    "PROXY_REDIS_URL": (
        "http://x",
        "127.0.0.1:6379",
        "redis://:hush@h:port/0",
        "redis://:hush#hush@h/0",
        "redis+sentinel://:hush@h",
        "redis+cluster://:hush@h/1",
        "rediss://:hush@h/0?ssl_ca_certs=/nowhere/ca.pem",
        f"rediss://:hush@h/0?ssl_ca_certs={__file__}",
    ),
    "PROXY_ALERT_WEBHOOK_URL": ("hooks.example", "https://u:hush@h", "https://h/?hush"),
    "PROXY_ALERT_WEBHOOK_SECRET": ("hush", "whsec_hush", "whsec_" + "aHVzaA=="),
    "PROXY_REQUEST_TIMEOUT_SECONDS": SECONDS,
    "PROXY_REQUIRE_KEYS": ("maybe", "2"),
    "PROXY_RESOURCE_COOLDOWN_SECONDS": SECONDS,
    "PROXY_ROUTER_PORT": PORTS,
    "PROXY_ROUTER_URL": ("router:8001", "ftp://router"),
    "PROXY_SECRET_ENCRYPTION_KEY": ("hush", f"{FERNET},hush", f"{FERNET},"),
    "PROXY_SESSION_TTL_SECONDS": SECONDS,
    "PROXY_SIMULATE": ("sometimes",),
    "PROXY_STRICT_ENV": FLAGS,
    "PROXY_TELEMETRY_CONSUMER": ("a b", "ü"),
    "PROXY_TELEMETRY_GROUP": ("a b",),
    "PROXY_TELEMETRY_STREAM": ("a b",),
    "PROXY_TRUSTED_PROXIES": ("10.0.0.1/8", "all", "10.0.0.0/8;::1"),
    "PROXY_UPSTREAM_BASE_URL": (
        "api.openai.com/v1",
        "ftp://api.openai.com",
        "https://",
        "https://h:99999/v1",
        "https://u:hush@h/v1",
        "https://h/v1?key=hush",
        "https://h/v 1",
        "https://[::1/v1",
    ),
    "PROXY_UPSTREAM_CA_FILE": ("/nowhere/ca.pem", "/", __file__),
    "OTEL_SDK_DISABLED": FLAGS,
    "OTEL_TRACES_EXPORTER": ("console", "otlp,console", "hush"),
    "OTEL_EXPORTER_OTLP_ENDPOINT": ("collector:4318", "ftp://hush", "http://h:99999"),
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ("collector", "grpc://hush:4317"),
}

# Any path is accepted; it is used later. Variables of traces matter if they are on.
NO_NONSENSE = {
    *("PROXY_DATA_DIR", "PROXY_PRICES_FILE"),
    *TracingSettings.variables()[4:],
}


def read_all(environ: dict[str, str]) -> dict[str, Any]:
    """Every service's settings, by variable."""
    values: dict[str, Any] = {}
    for model in MODELS:
        settings = model.read(environ)
        for name, field in model.model_fields.items():
            values[field.alias or name] = getattr(settings, name)
    return values


def test_the_tables_know_every_variable() -> None:
    assert sorted(GOOD) == ALL
    assert sorted({*BAD, *NO_NONSENSE}) == ALL


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [(v, text, value) for v, cases in GOOD.items() for text, value in cases],
)
def test_a_value_that_works(variable: str, text: str, value: object) -> None:
    assert read_all({variable: text})[variable] == value


@pytest.mark.parametrize(
    ("variable", "text"), [(v, text) for v, texts in BAD.items() for text in texts]
)
def test_a_value_that_makes_no_sense(variable: str, text: str) -> None:
    with pytest.raises(SettingError) as refused:
        read_all({variable: text})

    message = str(refused.value)
    assert message.startswith(f"{variable}: ")
    assert "\n" not in message
    assert "hush" not in message
    assert FERNET not in message


def test_the_stream_of_a_cluster_is_in_the_slot_of_the_routing_keys() -> None:
    cluster = {"PROXY_REDIS_URL": "redis+cluster://a,b"}
    named = {"PROXY_TELEMETRY_STREAM": "{rpx}:mine"}
    found = [GatewaySettings.read(cluster | more) for more in ({}, named)]
    assert [each.telemetry_stream for each in found] == [
        "{rpx}:telemetry:events",
        "{rpx}:mine",
    ]
    with pytest.raises(SettingError, match="another slot") as refused:
        GatewaySettings.read(cluster | {"PROXY_TELEMETRY_STREAM": "mine"})
    assert refused.value.variable == "PROXY_TELEMETRY_STREAM"


@pytest.mark.parametrize("url", ["redis://h/0", "redis+cluster://a,b"])
def test_the_stream_of_a_namespace_is_in_it(url: str) -> None:
    """Elsewhere another stack could read it, and store it in its database."""
    given = {"PROXY_REDIS_NAMESPACE": "b_2", "PROXY_REDIS_URL": url}
    settings = GatewaySettings.read(given)
    assert settings.redis_keys == Keys("b_2")
    assert settings.telemetry_stream == "{b_2}:telemetry:events"
    named = given | {"PROXY_TELEMETRY_STREAM": "{b_2}:mine"}
    assert GatewaySettings.read(named).telemetry_stream == "{b_2}:mine"
    for elsewhere in ("telemetry:events", "{rpx}:telemetry:events"):
        given["PROXY_TELEMETRY_STREAM"] = elsewhere
        with pytest.raises(SettingError, match=r"begins with \{b_2\}") as refused:
            GatewaySettings.read(given)
        assert refused.value.variable == "PROXY_TELEMETRY_STREAM"


def test_a_bad_namespace_is_the_only_problem_that_is_named() -> None:
    (problem,) = GatewaySettings.problems({"PROXY_REDIS_NAMESPACE": "a b"})
    assert str(problem) == (
        "PROXY_REDIS_NAMESPACE: is not a name of up to 31 lower-case letters, digits "
        "and underscores that begins with a letter. Correct it, or unset it for the "
        "default, rpx"
    )


def test_a_stack_with_a_redis_of_its_own_has_the_stream_it_always_had() -> None:
    for given in ({}, {"PROXY_REDIS_NAMESPACE": "rpx"}):
        settings = GatewaySettings.read(given)
        assert (settings.redis_keys, settings.telemetry_stream) == (
            DEFAULT,
            "telemetry:events",
        )


def test_an_empty_value_counts_as_unset() -> None:
    assert read_all(dict.fromkeys(ALL, "")) == read_all({})


def test_fernet_keys_in_order() -> None:
    other = Fernet.generate_key().decode()
    settings = RouterSettings.read(
        {"PROXY_SECRET_ENCRYPTION_KEY": f"{FERNET}, {other}"}
    )

    assert settings.fernet_keys == (FERNET, other)
    assert RouterSettings.read({}).fernet_keys == ()


def test_no_secret_in_a_repr() -> None:
    environ = {
        "PROXY_ADMIN_TOKEN": "hush-hush-hush",
        "PROXY_REDIS_URL": "redis://:hush@h/0",
        "PROXY_DATABASE_URL": "postgresql://u:hush@h/d",
        "PROXY_SECRET_ENCRYPTION_KEY": FERNET,
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=hush",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "api-key=hush",
        "PROXY_ALERT_WEBHOOK_URL": "https://h/hush",
        "PROXY_ALERT_WEBHOOK_SECRET": "hush" * 10,
    }
    for model in MODELS:
        assert "hush" not in repr(model.read(environ))
        assert FERNET not in repr(model.read(environ))


def test_the_router_is_found_at_its_port() -> None:
    assert GatewaySettings.read({"PROXY_ROUTER_PORT": "9001"}).router_url == (
        "http://127.0.0.1:9001"
    )


def test_each_worker_has_its_part_of_the_upstream_connections() -> None:
    every = GatewaySettings.read({})
    assert every.upstream_connections_per_worker == every.max_connections
    few = {"PROXY_MAX_UPSTREAM_CONNECTIONS": "10", "PROXY_GATEWAY_WORKERS": "4"}
    assert GatewaySettings.read(few).upstream_connections_per_worker == 3


def test_two_services_on_one_port() -> None:
    with pytest.raises(SettingError, match="HEALTH_PORT: is 8000, the same as PROXY_P"):
        CommonSettings.read({"PROXY_HEALTH_PORT": "8000"})


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "sqlite:///./data/proxy.sqlite3"),
        ({"DATABASE_URL": "postgres://c/d"}, "postgres://c/d"),
        (
            {
                "DATABASE_URL": "postgres://c/d",
                "SERVICE_DATABASE_URL": "postgres://b/d",
            },
            "postgres://b/d",
        ),
        (
            {"SERVICE_DATABASE_URL": "postgres://b/d", "PROXY_DATABASE_URL": ""},
            "postgres://b/d",
        ),
        (
            {
                "SERVICE_DATABASE_URL": "postgres://b/d",
                "PROXY_DATABASE_URL": "postgres://a/d",
                "PROXY_SQLITE_URL": "sqlite:///x",
            },
            "postgres://a/d",
        ),
    ],
)
def test_the_first_database_url_counts(environ: dict[str, str], url: str) -> None:
    assert DatabaseSettings.read(environ).url == url


@pytest.mark.parametrize(
    ("environ", "is_open"),
    [
        ({}, False),
        ({"PROXY_HOST": "0.0.0.0"}, False),
        ({"PROXY_ADMIN_TOKEN": "long-enough"}, False),
        ({"PROXY_ALLOW_OPEN_ADMIN": "true"}, True),
        ({"PROXY_HOST": "0.0.0.0", "PROXY_ALLOW_OPEN_ADMIN": "true"}, True),
        ({"PROXY_ALLOW_OPEN_ADMIN": "true", "PROXY_ADMIN_TOKEN": "enough-x"}, False),
    ],
)
def test_the_admin_api_is_open_only_when_asked_for(
    environ: dict[str, str], is_open: bool
) -> None:
    assert CommonSettings.read(environ).open_admin == is_open


@pytest.mark.parametrize(
    ("given", "host", "answers"),
    [
        ("proxy.example.com", "proxy.example.com:8443", True),
        (" Proxy.Example.com:8000 , *.internal ", "proxy.example.com", True),
        ("proxy.example.com,*.internal", "a.internal", True),
        ("[2001:db8::1]", "[2001:db8::1]:80", True),
        ("2001:db8::1", "[2001:db8::1]:80", True),
        ("proxy.example.com", "evil.example", False),
        ("", "proxy.example.com", False),
    ],
)
def test_allowed_hosts(given: str, host: str, answers: bool) -> None:
    settings = RouterSettings.read({"PROXY_ALLOWED_HOSTS": given})
    assert settings.guard.answers_to(host) == answers


def test_allowed_origins() -> None:
    given = "https://App.example:443/, http://localhost:3000"
    guard = GatewaySettings.read({"PROXY_ALLOWED_ORIGINS": given}).guard
    assert set(guard.origins) == {"https://app.example", "http://localhost:3000"}
