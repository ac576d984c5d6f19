"""Providers and model aliases, and tests of them."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from libs.common.contracts.catalogue import Frozen
from libs.common.errors import SettingError
from libs.common.providers.azure import AZURE
from libs.common.providers.key_headers import API_KEY, BEARER
from libs.common.providers.references import may_hold_keys
from libs.common.settings.messages import SettingErrorCarrier
from libs.common.settings.resources import (
    HIGHEST_WEIGHT,
    LOWEST_WEIGHT,
    NAME,
    checked_key,
)
from libs.common.settings.upstreams import checked_url
from services.router.admin.schemas.changes import Change

MOST_KEYS = 100
MOST_TARGETS = 8  # of a model alias
HIGHEST_PRIORITY = 100  # a number; the least important


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


def auth_type_of(provider_type: str, auth_type: str | None) -> str:
    """How a provider's key is sent, by default as its type takes it."""
    return auth_type or (API_KEY if provider_type == AZURE else BEARER)


def keys_of(value: SecretStr) -> tuple[str, ...]:
    """The distinct keys of a comma-separated list."""
    listed = (part.strip() for part in value.get_secret_value().split(","))
    return tuple(dict.fromkeys(part for part in listed if part))


ProviderType = Literal["openai", "azure", "custom"]
AuthType = Literal["bearer", "api_key"]
BaseUrl = Annotated[str, Field(max_length=2048), AfterValidator(_url)]
Reference = Annotated[str, AfterValidator(_reference)]
ApiKey = Annotated[SecretStr, Field(max_length=65_536), AfterValidator(_keys)]


class _ProviderFields(Frozen):
    name: Name = ""
    provider_type: ProviderType = "openai"
    base_url: BaseUrl | None = None
    wire_api: Literal["responses"] = "responses"
    auth_type: AuthType | None = None
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
    PROXY_UPSTREAM_BASE_URL. That is also the default `base_url` of type `openai`; the
    one of type `azure` ends in /openai/v1. `auth_type` says how the key is sent:
    `bearer`, or `api_key`, the default of type `azure`. Without `pool_id` it serves
    requests that name no pool."""

    id: ProviderId


class ProviderChange(Change, _ProviderFields):
    """Fields that are sent are changed. `api_key` and `credential_ref` replace each
    other. To change `base_url`, send the `api_key` or `credential_ref` again: stored
    ones are never sent to another address. A new `provider_type` without an
    `auth_type` sets that type's default."""


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


class Target(Frozen):
    """A provider's model. Targets of the lowest priority serve an alias, each in
    proportion to its weight; those of the next one when none of them can."""

    provider_id: ProviderId
    upstream_id: UpstreamId
    weight: Weight = 1.0
    priority: Annotated[int, Field(ge=0, le=HIGHEST_PRIORITY)] = 0


def _distinct(targets: tuple[Target, ...]) -> tuple[Target, ...]:
    """By priority."""
    names = [(target.provider_id, target.upstream_id) for target in targets]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise ValueError(
                f"targets {names.index(name)} and {place} are the same; give one of "
                "them, with the sum of their weights"
            )
    return tuple(sorted(targets, key=lambda target: target.priority))


Targets = Annotated[
    tuple[Target, ...],
    Field(min_length=1, max_length=MOST_TARGETS),
    AfterValidator(_distinct),
]
_TWO_FORMS = "give targets, or provider_id and upstream_id, not both"


class ModelAsk(Frozen):
    """A model alias: requests for `alias` go to the provider, as `upstream_id`; or to
    one of several `targets`."""

    alias: AliasName
    provider_id: ProviderId | None = None
    upstream_id: UpstreamId | None = None
    targets: Targets | None = None
    enabled: bool = True

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        single = self.provider_id, self.upstream_id
        if self.targets is not None and any(single):
            raise ValueError(_TWO_FORMS)
        return self

    @property
    def missing(self) -> str | None:
        """A field that is necessary without `targets`."""
        if self.targets is None:
            for name in ("provider_id", "upstream_id"):
                if getattr(self, name) is None:
                    return name
        return None


class ModelChange(Change):
    """Fields that are sent are changed. `targets` replaces all of them; `provider_id`
    and `upstream_id` together replace them by one."""

    provider_id: ProviderId = ""
    upstream_id: UpstreamId = ""
    targets: Targets = ()
    enabled: bool = True

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.targets and (self.provider_id or self.upstream_id):
            raise ValueError(_TWO_FORMS)
        return self


class ModelRow(Frozen):
    """A row of `models`. `provider_id` and `upstream_id` are those of the first of
    `targets`, which are sorted by priority."""

    alias: str
    provider_id: str
    upstream_id: str
    targets: tuple[Target, ...]
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
    provider_type: ProviderType = "openai"
    base_url: BaseUrl | None = None
    auth_type: AuthType | None = None
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
    """`ok`: the provider lists the model for every key, and that of each target does.
    `provider_id` and `upstream_id` are those of the first one."""

    ok: bool
    alias: str | None
    provider_id: str
    upstream_id: str
    detail: str
    results: tuple[KeyVerdict, ...]
