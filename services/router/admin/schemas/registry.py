"""Providers and model aliases, and tests of them."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from libs.common.contracts.catalogue import Frozen
from libs.common.errors import SettingError
from libs.common.providers.references import may_hold_keys
from libs.common.settings.base import SettingErrorCarrier
from libs.common.settings.resources import (
    HIGHEST_WEIGHT,
    LOWEST_WEIGHT,
    NAME,
    checked_key,
)
from libs.common.settings.upstreams import checked_url

MOST_KEYS = 100


def _not_test(value: str) -> str:
    if value == "test":
        raise ValueError("the name test is reserved, choose another")
    return value


# Part of headers, URLs and resource ids.
ProviderId = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"), AfterValidator(_not_test)
]
AliasName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}$"),
    AfterValidator(_not_test),
]
Name = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=200)]
UpstreamId = Annotated[
    str, Field(pattern=r"^[^\x00-\x1f\x7f]+$", min_length=1, max_length=256)
]
PoolName = Annotated[str, Field(pattern=f"^{NAME}$")]
Weight = Annotated[float, Field(ge=LOWEST_WEIGHT, le=HIGHEST_WEIGHT)]


def _url(value: str) -> str:
    try:
        return checked_url("base_url", value)
    except SettingErrorCarrier as error:
        raise ValueError(str(error)) from None


def _reference(value: str) -> str:
    if may_hold_keys(value):
        return value
    raise ValueError(
        "give env:NAME, a variable of the gateways and the health service; the proxy's "
        "own variables, database URLs and HTTP proxies are not allowed"
    )


def _keys(value: SecretStr) -> SecretStr:
    listed = keys_of(value)
    if not 1 <= len(set(listed)) <= MOST_KEYS:
        raise ValueError(f"give 1 to {MOST_KEYS} keys, separated by commas")
    try:
        for key in listed:
            checked_key("api_key", key)
    except SettingError as error:
        raise ValueError(str(error)) from None
    return value


def keys_of(value: SecretStr) -> tuple[str, ...]:
    """The distinct keys of a comma-separated list."""
    listed = (part.strip() for part in value.get_secret_value().split(","))
    return tuple(dict.fromkeys(part for part in listed if part))


BaseUrl = Annotated[str, Field(max_length=2048), AfterValidator(_url)]
Reference = Annotated[str, AfterValidator(_reference)]
ApiKey = Annotated[SecretStr, Field(max_length=65_536), AfterValidator(_keys)]


class _ProviderFields(Frozen):
    name: Name = ""
    provider_type: Literal["openai", "custom"] = "openai"
    base_url: BaseUrl | None = None
    wire_api: Literal["responses"] = "responses"
    auth_type: Literal["bearer"] = "bearer"
    api_key: ApiKey | None = None
    credential_ref: Reference | None = None
    pool_id: PoolName | None = None
    account_id: PoolName | None = None
    weight: Weight = 1.0
    enabled: bool = True

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.api_key is not None and self.credential_ref is not None:
            raise ValueError("give api_key or credential_ref, not both")
        return self


class ProviderAsk(_ProviderFields):
    """A new provider. Its keys are given as `api_key` (one, or several separated by
    commas), which is sealed and never shown, or as `credential_ref`: `env:NAME`, where
    NAME matches PROXY_CREDENTIAL_VARIABLES, or OPENAI_* if the provider's address is
    PROXY_UPSTREAM_BASE_URL. That is also the default `base_url` of type `openai`.
    Without `pool_id` it serves requests that name no pool."""

    id: ProviderId


class ProviderChange(_ProviderFields):
    """Fields that are sent are changed. `api_key` and `credential_ref` replace each
    other. To change `base_url`, send the `api_key` or `credential_ref` again: stored
    ones are never sent to another address."""


class ProviderRow(Frozen):
    """A row of `providers`, without its keys. `resources` are the ids of its
    resources, one for each key."""

    id: str
    name: str
    provider_type: str
    base_url: str
    wire_api: str
    auth_type: str
    api_key_configured: bool
    credential_ref: str | None
    pool_id: str | None
    account_id: str | None
    weight: float
    enabled: bool
    resources: tuple[str, ...]
    created_at: str
    updated_at: str


class ProvidersList(Frozen):
    """All providers, oldest first."""

    data: tuple[ProviderRow, ...]
    next_cursor: None = None


class ModelAsk(Frozen):
    """A model alias: requests for `alias` go to the provider, as `upstream_id`."""

    alias: AliasName
    provider_id: ProviderId
    upstream_id: UpstreamId
    enabled: bool = True


class ModelChange(Frozen):
    """Fields that are sent are changed."""

    provider_id: ProviderId = ""
    upstream_id: UpstreamId = ""
    enabled: bool = True


class ModelRow(Frozen):
    """A row of `models`."""

    alias: str
    provider_id: str
    upstream_id: str
    enabled: bool
    created_at: str
    updated_at: str


class ModelsList(Frozen):
    """All model aliases, sorted by name."""

    data: tuple[ModelRow, ...]
    next_cursor: None = None


class ProviderTestAsk(Frozen):
    """A stored provider by its id, or the fields and keys of a new one."""

    id: ProviderId | None = None
    provider_type: Literal["openai", "custom"] = "openai"
    base_url: BaseUrl | None = None
    api_key: ApiKey | None = None
    credential_ref: Reference | None = None


class ModelTestAsk(Frozen):
    """A stored alias, or the provider and the upstream model of a new one."""

    alias: AliasName | None = None
    provider_id: ProviderId | None = None
    upstream_id: UpstreamId | None = None


class KeyVerdict(Frozen):
    """The upstream's verdict on one key. `verdict`: ok, refused (the key is invalid),
    exhausted (no credit left), limited (rate limited), fault (no response, or an
    error), neutral (another response), unresolved (the health service does not have
    this key)."""

    key: str  # its resource's id, or its position
    ok: bool
    verdict: str
    detail: str
    latency_ms: float | None
    models: tuple[str, ...]  # the first 200 that it lists
    lists_model: bool | None = None  # the tested one


class ProviderTested(Frozen):
    """`ok`: every key works."""

    ok: bool
    base_url: str
    results: tuple[KeyVerdict, ...]


class ModelTested(Frozen):
    """`ok`: the provider lists the model for every key."""

    ok: bool
    alias: str | None
    provider_id: str
    upstream_id: str
    detail: str
    results: tuple[KeyVerdict, ...]
