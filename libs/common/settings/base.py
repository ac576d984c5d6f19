"""Settings that several services share. Each composition root reads them once from a
mapping; no other code reads the environment. An invalid value raises `SettingError`,
whose message names the variable and the fix in one line."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from libs.common.errors import SettingError
from libs.common.redis import url as redis_url

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400 * 365)]


class Settings(BaseSettings):
    """Base class of settings. The alias of a field is its environment variable."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", validate_default=True, hide_input_in_errors=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # Only values passed by `read`: the environment is an argument.
        return (init_settings,)

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Read settings from `environ`. An empty value counts as unset, because
        compose files pass on variables that are not set."""
        given = {name: environ[name] for name in cls.variables() if environ.get(name)}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise _as_setting_error(cls, error) from None

    @classmethod
    def variables(cls) -> tuple[str, ...]:
        """The environment variables this model reads."""
        return tuple(
            field.alias or name.upper() for name, field in cls.model_fields.items()
        )


def _as_setting_error(cls: type[Settings], error: ValidationError) -> SettingError:
    first = error.errors(include_url=False, include_input=False)[0]
    location = str(first["loc"][0]) if first["loc"] else ""
    context: dict[str, Any] = first.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, SettingErrorCarrier):
        return cause.setting_error
    return SettingError(
        location or cls.__name__,
        str(first["msg"]).removeprefix("Value error, ").rstrip("."),
        "See the configuration table in README.md",
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


class SettingErrorCarrier(ValueError):
    """Carries a SettingError through pydantic, which passes on only ValueErrors."""

    def __init__(self, variable: str, problem: str, fix: str) -> None:
        self.setting_error = SettingError(variable, problem, fix)
        super().__init__(str(self.setting_error))


class CommonSettings(Settings):
    """Settings that every service reads."""

    # Listening addresses, and the directory for files.
    host: str = Field("127.0.0.1", alias="PROXY_HOST")
    port: Port = Field(8000, alias="PROXY_PORT")
    router_port: Port = Field(8001, alias="PROXY_ROUTER_PORT")
    health_port: Port = Field(8002, alias="PROXY_HEALTH_PORT")
    ingest_port: Port = Field(8003, alias="PROXY_INGEST_PORT")
    data_dir: Path = Field(Path("./data"), alias="PROXY_DATA_DIR")
    log_level: str = Field("info", alias="PROXY_LOG_LEVEL")

    # State and telemetry.
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0", alias="PROXY_REDIS_URL", repr=False
    )
    telemetry_stream: str = Field("telemetry:events", alias="PROXY_TELEMETRY_STREAM")
    telemetry_group: str = Field(
        "responses-proxy-workers", alias="PROXY_TELEMETRY_GROUP"
    )

    # After SIGTERM, the time a process has to finish its work.
    drain_seconds: Seconds = Field(10.0, alias="PROXY_DRAIN_SECONDS")

    # The admin API and the dashboard's data.
    admin_token: str | None = Field(
        None, alias="PROXY_ADMIN_TOKEN", min_length=8, repr=False
    )
    allow_open_admin: bool = Field(False, alias="PROXY_ALLOW_OPEN_ADMIN")

    @field_validator("host")
    @classmethod
    def _bare_host(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9._:%-]+", value):
            raise SettingErrorCarrier(
                "PROXY_HOST",
                "is not an address",
                "Use an address without a port, such as 127.0.0.1 or 0.0.0.0",
            )
        return value

    @field_validator("telemetry_stream", "telemetry_group")
    @classmethod
    def _one_word(cls, value: str, info: ValidationInfo) -> str:
        if not re.fullmatch(r"[!-~]{1,200}", value):
            raise SettingErrorCarrier(
                f"PROXY_{(info.field_name or '').upper()}",
                "is not a valid name",
                "Use up to 200 ASCII characters without spaces",
            )
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: str) -> str:
        fix = (
            "Use redis://HOST:PORT/0, rediss:// for TLS, unix:///PATH of a socket, "
            "or redis+sentinel://HOST:26379,HOST:26379/SERVICE/0"
        )
        try:
            files = redis_url.parse(value).files
        except redis_url.BadRedisUrl as error:
            raise SettingErrorCarrier("PROXY_REDIS_URL", str(error), fix) from None
        if unreadable := next((f for f in files if not readable_pem(f)), None):
            raise SettingErrorCarrier(
                "PROXY_REDIS_URL",
                f"names {unreadable}, which is not a readable PEM file",
                "Name a file with the CA certificate, or with the client certificate",
            )
        return value

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.lower() not in {"debug", "info", "warning", "error"}:
            raise SettingErrorCarrier(
                "PROXY_LOG_LEVEL",
                "is not a log level",
                "Use debug, info, warning or error",
            )
        return value.lower()

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
    sqlite_url: str = Field("sqlite:///./data/proxy.sqlite3", alias="PROXY_SQLITE_URL")

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
        return value

    @field_validator("sqlite_url")
    @classmethod
    def _sqlite(cls, value: str) -> str:
        if not value.startswith("sqlite:///") or len(value) <= len("sqlite:///"):
            raise SettingErrorCarrier(
                "PROXY_SQLITE_URL", "is not an SQLite URL", "Use sqlite:///PATH"
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
