"""Settings that several services share. Each composition root reads them once from a
mapping; no other code reads the environment. An invalid value raises `SettingError`,
whose message names the variable and the fix in one line."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from libs.common.errors import SettingError, shown
from libs.common.redis import url as redis_url
from libs.common.redis.keys import DEFAULT_NAMESPACE, NAMESPACE, STREAM, Keys
from libs.common.settings.messages import SettingErrorCarrier, setting_errors

CLUSTER_SCHEMES = tuple(f"{scheme}://" for scheme in redis_url.CLUSTERS)

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400 * 365)]
Word = Annotated[
    str,
    Field(
        pattern=r"^[!-~]{1,200}$",
        description="a name of up to 200 ASCII characters without spaces",
    ),
]
Namespace = Annotated[
    str,
    Field(
        pattern=f"^(?:{NAMESPACE.pattern})$",
        description="a name of up to 31 lower-case letters, digits and underscores "
        "that begins with a letter",
    ),
]
AnyCase = BeforeValidator(lambda value: value.strip().lower())
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], AnyCase]


class Settings(BaseModel):
    """Base class of settings. The alias of a field is its environment variable."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        validate_default=True,
        hide_input_in_errors=True,
        defer_build=True,  # a process reads only some of them
    )

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Read settings from `environ`. An empty value counts as unset, because
        compose files pass on variables that are not set."""
        try:
            return cls.model_validate(cls._given(environ))
        except ValidationError as error:
            raise setting_errors(cls, error)[0] from None

    @classmethod
    def problems(cls, environ: Mapping[str, str]) -> list[SettingError]:
        """An error for each invalid variable in `environ`."""
        try:
            cls.model_validate(cls._given(environ))
        except ValidationError as error:
            return setting_errors(cls, error)
        return []

    @classmethod
    def _given(cls, environ: Mapping[str, str]) -> dict[str, str]:
        return {name: environ[name] for name in cls.variables() if environ.get(name)}

    @classmethod
    def variables(cls) -> tuple[str, ...]:
        """The environment variables this model reads."""
        return tuple(
            field.alias or name.upper() for name, field in cls.model_fields.items()
        )


def url_of(value: str, schemes: Collection[str]) -> bool:
    """Whether `value` is a URL with one of `schemes` and a valid port, if any."""
    try:
        parts = urlsplit(value)
        return parts.scheme in schemes and parts.port != 0
    except ValueError:  # the port exceeds 65535 or is not a number
        return False


def readable_pem(path: str) -> bool:
    """Whether the file is readable and contains a PEM block."""
    try:
        return "-----BEGIN " in Path(path).read_text(errors="replace")
    except OSError:
        return False


class StrictSettings(Settings):
    """What to do with variables that nothing reads; see
    libs.common.settings.variables."""

    strict_env: bool = Field(False, alias="PROXY_STRICT_ENV")


Host = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9._:%-]+$",
        description="an address without a port, such as 127.0.0.1 or 0.0.0.0",
    ),
]


class CommonSettings(StrictSettings):
    """Settings that every service reads."""

    # Listening addresses, and the directory for files.
    host: Host = Field("127.0.0.1", alias="PROXY_HOST")
    internal_host: Host | None = Field(None, alias="PROXY_INTERNAL_HOST")
    port: Port = Field(8000, alias="PROXY_PORT")
    router_port: Port = Field(8001, alias="PROXY_ROUTER_PORT")
    health_port: Port = Field(8002, alias="PROXY_HEALTH_PORT")
    ingest_port: Port = Field(8003, alias="PROXY_INGEST_PORT")
    data_dir: Path = Field(Path("./data"), alias="PROXY_DATA_DIR")
    log_level: LogLevel = Field("info", alias="PROXY_LOG_LEVEL")

    # State and telemetry.
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0", alias="PROXY_REDIS_URL", repr=False
    )
    redis_namespace: Namespace = Field(DEFAULT_NAMESPACE, alias="PROXY_REDIS_NAMESPACE")
    telemetry_stream: Word = Field(STREAM, alias="PROXY_TELEMETRY_STREAM")
    telemetry_group: Word = Field(
        "responses-proxy-workers", alias="PROXY_TELEMETRY_GROUP"
    )

    # After SIGTERM, the time a process has to finish its work.
    drain_seconds: Seconds = Field(10.0, alias="PROXY_DRAIN_SECONDS")

    # The admin API and the dashboard's data.
    admin_token: str | None = Field(
        None, alias="PROXY_ADMIN_TOKEN", min_length=8, repr=False
    )
    allow_open_admin: bool = Field(False, alias="PROXY_ALLOW_OPEN_ADMIN")

    def host_of(self, service: str) -> str:
        """The address that a service listens on."""
        return self.host if service == "gateway" else self.internal_host or self.host

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: str) -> str:
        fix = (
            "Use redis://HOST:PORT/0, rediss:// for TLS, unix:///PATH of a socket, "
            "redis+sentinel://HOST:26379,HOST:26379/SERVICE/0, "
            "or redis+cluster://HOST:6379,HOST:6379"
        )
        try:
            files = redis_url.parse(value).files
        except redis_url.BadRedisUrl as error:
            raise SettingErrorCarrier("PROXY_REDIS_URL", str(error), fix) from None
        if unreadable := next((f for f in files if not readable_pem(f)), None):
            raise SettingErrorCarrier(
                "PROXY_REDIS_URL",
                f"names {shown(unreadable)}, which is not a readable PEM file",
                "Name a file with the CA certificate, or with the client certificate",
            )
        return value

    @property
    def redis_keys(self) -> Keys:
        """The names of this stack's keys and functions in Redis."""
        return Keys(self.redis_namespace)

    @model_validator(mode="before")
    @classmethod
    def _stream_of_namespace(cls, given: dict[str, Any]) -> dict[str, Any]:
        """The default name of the stream: as ever for a stack with a Redis of its own.
        Functions write the stream, so on a Cluster it must be in their slot."""
        namespace = given.get("PROXY_REDIS_NAMESPACE", DEFAULT_NAMESPACE)
        cluster = given.get("PROXY_REDIS_URL", "").startswith(CLUSTER_SCHEMES)
        if NAMESPACE.fullmatch(namespace):
            keys = Keys(namespace)
            if cluster or not keys.is_default:
                return {"PROXY_TELEMETRY_STREAM": keys.tagged_stream, **given}
        return given

    @model_validator(mode="after")
    def _stream_in_namespace(self) -> Self:
        keys, stream = self.redis_keys, self.telemetry_stream
        cluster = self.redis_url.startswith(CLUSTER_SCHEMES)
        if keys.has_tag(stream) or not (cluster or not keys.is_default):
            return self
        if cluster:
            wrong = "is in another slot of the Redis Cluster than the routing state"
        else:
            wrong = "another stack may write too: PROXY_REDIS_NAMESPACE is set"
        raise SettingErrorCarrier(
            "PROXY_TELEMETRY_STREAM",
            f"is {shown(stream)}, which {wrong}",
            f"Unset it, or use a name that begins with {keys.tag}",
        )

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        named = {
            "PROXY_PORT": self.port,
            "PROXY_ROUTER_PORT": self.router_port,
            "PROXY_HEALTH_PORT": self.health_port,
            "PROXY_INGEST_PORT": self.ingest_port,
        }
        seen: dict[int, str] = {}
        for name, port in named.items():
            if port in seen:
                raise SettingErrorCarrier(
                    name,
                    f"is {port}, the same as {seen[port]}",
                    "Give each service a different port",
                )
            seen[port] = name
        return self

    @property
    def open_admin(self) -> bool:
        """Whether /admin requires no token. Without this setting, a token is
        generated."""
        return self.allow_open_admin and self.admin_token is None


class DatabaseSettings(Settings):
    """The SQL database. The first database URL that is set is used, else SQLite."""

    proxy_database_url: str | None = Field(None, alias="PROXY_DATABASE_URL", repr=False)
    service_database_url: str | None = Field(
        None, alias="SERVICE_DATABASE_URL", repr=False
    )
    database_url: str | None = Field(None, alias="DATABASE_URL", repr=False)
    sqlite_url: str = Field(
        "sqlite:///./data/proxy.sqlite3",
        alias="PROXY_SQLITE_URL",
        pattern=r"^sqlite:///.",
        description="an SQLite URL, sqlite:///PATH",
    )

    @field_validator("proxy_database_url", "service_database_url", "database_url")
    @classmethod
    def _postgres(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value and not url_of(value, {"postgres", "postgresql"}):
            raise SettingErrorCarrier(
                (info.field_name or "").upper(),
                "is not a PostgreSQL URL",
                "Use postgresql://USER:PASSWORD@HOST/DATABASE, or leave it unset "
                "and use PROXY_SQLITE_URL",
            )
        # libpq takes the first one as the end of the password, and what follows as a
        # host, which its errors name.
        if value and re.split("[/?]", value.partition("://")[2])[0].count("@") > 1:
            raise SettingErrorCarrier(
                (info.field_name or "").upper(),
                "has a user or password with a character that must be percent-encoded",
                "Write @ as %40 there, and / as %2F",
            )
        return value

    @property
    def url(self) -> str:
        """The URL in effect: postgresql://... or sqlite:///..."""
        return (
            self.proxy_database_url
            or self.service_database_url
            or self.database_url
            or self.sqlite_url
        )
