"""Settings of upstreams and providers: addresses, egress, and sealed keys."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from cryptography.fernet import Fernet
from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator

from libs.common.runtime.tls import client_context
from libs.common.settings.base import SettingErrorCarrier, Settings
from libs.common.settings.credential_variables import (
    DEFAULT_VARIABLES,
    BadGlob,
    parse_globs,
)


def http_url(value: str, info: ValidationInfo) -> str:
    """An http(s) URL with a host and nothing behind its path; no trailing slash."""
    return checked_url(f"PROXY_{(info.field_name or '').upper()}", value)


def checked_url(variable: str, value: str) -> str:
    """The same of what `variable` holds. Raises `SettingErrorCarrier`."""
    fix = "Write http(s)://HOST[:PORT][/PATH], such as https://api.openai.com/v1"
    try:
        parts = urlsplit(value.strip())
        complete = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no port, a bracket that is not closed
        raise SettingErrorCarrier(variable, "is no URL", fix) from None
    if parts.scheme not in {"http", "https"} or not complete:
        raise SettingErrorCarrier(variable, "is no http(s) URL with a host", fix)
    if parts.query or parts.fragment or parts.username or parts.password:
        raise SettingErrorCarrier(
            variable, "has a query, a fragment or credentials", fix
        )
    if not value.isascii() or any(c.isspace() for c in value.strip()):
        raise SettingErrorCarrier(variable, "has a space or non-ASCII in it", fix)
    return value.strip().rstrip("/")


HttpUrl = Annotated[str, AfterValidator(http_url)]


class UpstreamSettings(Settings):
    """Where requests go."""

    upstream_base_url: HttpUrl = Field(
        "https://api.openai.com/v1", alias="PROXY_UPSTREAM_BASE_URL"
    )


class ProviderSettings(UpstreamSettings):
    """Where registered providers may be, and which variables may hold their keys."""

    # Loopback, RFC 1918, unique local and shared (CGNAT) addresses.
    provider_private_addresses: bool = Field(
        True, alias="PROXY_PROVIDER_PRIVATE_ADDRESSES"
    )
    # Comma list of globs; the keys of OPENAI_* go to the configured upstream only.
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
                f"Write a comma list such as {DEFAULT_VARIABLES},ACME_API_KEY",
            ) from None
        return value


class EgressSettings(Settings):
    """How upstreams are connected to. The proxies are not here: every tool reads
    their variables, so they have no prefix (see libs.common.settings.http_proxies)."""

    # Certificates to trust beside the system's, PEM.
    upstream_ca_file: Path | None = Field(None, alias="PROXY_UPSTREAM_CA_FILE")

    @field_validator("upstream_ca_file")
    @classmethod
    def _holds_certificates(cls, value: Path | None) -> Path | None:
        try:
            if value is not None:
                client_context(value)
        except OSError:  # unreadable, or no certificate in it
            raise SettingErrorCarrier(
                "PROXY_UPSTREAM_CA_FILE",
                "names no readable file of PEM certificates",
                "Name the file of your CA's certificate, or unset it",
            ) from None
        return value


class SealingSettings(Settings):
    """What opens the keys that the provider registry keeps sealed."""

    # Comma list of Fernet keys; the first seals, all open.
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
                    f"key {position} is no Fernet key ({len(key)} characters; one has "
                    "44 of URL-safe base64)",
                    "Make one with: python -c 'from cryptography.fernet import Fernet;"
                    " print(Fernet.generate_key().decode())'",
                ) from None
        return value


def _fernet_keys(value: SecretStr | None) -> tuple[str, ...]:
    listed = value.get_secret_value().split(",") if value else []
    return tuple(key.strip() for key in listed)
