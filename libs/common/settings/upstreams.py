"""Settings of upstreams and providers: addresses, egress, and sealed keys."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from cryptography.fernet import Fernet
from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator

from libs.common.runtime.tls import client_context
from libs.common.settings.base import Settings
from libs.common.settings.credential_variables import (
    DEFAULT_VARIABLES,
    BadGlob,
    parse_globs,
)
from libs.common.settings.messages import SettingErrorCarrier


def http_url(value: str, info: ValidationInfo) -> str:
    """Validate a setting as an http(s) URL; see `checked_url`."""
    return checked_url(f"PROXY_{(info.field_name or '').upper()}", value)


def checked_url(variable: str, value: str) -> str:
    """Validate an http(s) URL without query, fragment or credentials, and remove
    trailing slashes. `variable` names it in errors. Raises `SettingErrorCarrier`."""
    fix = "Use http(s)://HOST[:PORT][/PATH], such as https://api.openai.com/v1"
    try:
        parts = urlsplit(value.strip())
        complete = bool(parts.hostname) and parts.port != 0
    except ValueError:  # invalid port, unclosed bracket
        raise SettingErrorCarrier(variable, "is not a URL", fix) from None
    if parts.scheme not in {"http", "https"} or not complete:
        raise SettingErrorCarrier(variable, "is not an http(s) URL with a host", fix)
    if parts.query or parts.fragment or parts.username or parts.password:
        raise SettingErrorCarrier(
            variable, "contains a query, a fragment or credentials", fix
        )
    if not value.isascii() or any(c.isspace() for c in value.strip()):
        raise SettingErrorCarrier(
            variable, "contains a space or a non-ASCII character", fix
        )
    return value.strip().rstrip("/")


HttpUrl = Annotated[str, AfterValidator(http_url)]


class UpstreamSettings(Settings):
    """The configured upstream."""

    upstream_base_url: HttpUrl = Field(
        "https://api.openai.com/v1", alias="PROXY_UPSTREAM_BASE_URL"
    )


class ProviderSettings(UpstreamSettings):
    """Addresses allowed for registered providers, and variables that may hold keys."""

    # Loopback, RFC 1918, unique local and shared (CGNAT) addresses.
    provider_private_addresses: bool = Field(
        True, alias="PROXY_PROVIDER_PRIVATE_ADDRESSES"
    )
    # Comma-separated globs. Keys in OPENAI_* are sent to the configured upstream only.
    credential_variables: str = Field(
        DEFAULT_VARIABLES, alias="PROXY_CREDENTIAL_VARIABLES"
    )

    @field_validator("credential_variables")
    @classmethod
    def _are_globs(cls, value: str) -> str:
        try:
            parse_globs(value)
        except BadGlob as error:
            raise SettingErrorCarrier(
                "PROXY_CREDENTIAL_VARIABLES",
                str(error),
                f"Use a comma-separated list such as {DEFAULT_VARIABLES},ACME_API_KEY",
            ) from None
        return value


class EgressSettings(Settings):
    """Connections to upstreams. HTTP proxies are read from the variables that all tools
    use, without a prefix (see libs.common.settings.http_proxies)."""

    # PEM certificates to trust in addition to the system's.
    upstream_ca_file: Path | None = Field(None, alias="PROXY_UPSTREAM_CA_FILE")

    @field_validator("upstream_ca_file")
    @classmethod
    def _holds_certificates(cls, value: Path | None) -> Path | None:
        try:
            if value is not None:
                client_context(value)
        except OSError:  # unreadable, or without certificates
            raise SettingErrorCarrier(
                "PROXY_UPSTREAM_CA_FILE",
                "does not name a readable file with PEM certificates",
                "Name a file with the CA certificate, or unset it",
            ) from None
        return value


class SealingSettings(Settings):
    """Encryption of the provider keys stored in SQL."""

    # Comma-separated Fernet keys. The first encrypts; all decrypt.
    secret_encryption_key: SecretStr | None = Field(
        None, alias="PROXY_SECRET_ENCRYPTION_KEY"
    )

    @property
    def fernet_keys(self) -> tuple[str, ...]:
        """The keys of `secret_encryption_key`, in order."""
        return _fernet_keys(self.secret_encryption_key)

    @field_validator("secret_encryption_key")
    @classmethod
    def _are_fernet_keys(cls, value: SecretStr | None) -> SecretStr | None:
        for position, key in enumerate(_fernet_keys(value), start=1):
            try:
                Fernet(key)
            except ValueError:
                raise SettingErrorCarrier(
                    "PROXY_SECRET_ENCRYPTION_KEY",
                    f"key {position} is not a Fernet key ({len(key)} characters; a key "
                    "has 44 of URL-safe base64)",
                    "Generate one with: python -c 'from cryptography.fernet import "
                    "Fernet; print(Fernet.generate_key().decode())'",
                ) from None
        return value


def _fernet_keys(value: SecretStr | None) -> tuple[str, ...]:
    listed = value.get_secret_value().split(",") if value else []
    return tuple(key.strip() for key in listed)
