"""Proxy keys."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, Field

from libs.common.contracts.catalogue import Frozen
from services.router.admin.schemas.pages import page_of

# Without control characters, which not every database stores.
PoolId = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=200)]
KeyName = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=200)]
KeyPools = Annotated[tuple[PoolId, ...], Field(max_length=100)]
TeamId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:@-]+$", max_length=100)]
# A range that both databases store, in every time zone.
Expiry = Annotated[
    AwareDatetime,
    Field(ge=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(9000, 1, 1, tzinfo=UTC)),
]
PerMinute = Annotated[int, Field(ge=1, le=10**12)]


class MintAsk(Frozen):
    """A new proxy key. team_id: keys of one team share the responses, conversations,
    files and other objects that they create; a key without a team shares with none.
    pool_id: every request goes to this pool. pools: the pools that requests may name;
    the first is the default, an empty list allows all. Limits apply over all gateways
    together."""

    name: KeyName = ""
    team_id: TeamId | None = None
    pool_id: PoolId | None = None
    pools: KeyPools = ()
    expires_at: Expiry | None = None
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None


class KeyChange(MintAsk):
    """Fields that are sent are changed; null removes a limit."""

    enabled: bool = True


class ProxyKeyRow(Frozen):
    """A row of `proxy_keys`, without the secret."""

    id: str  # `requests.proxy_key_id`
    name: str
    prefix: str  # the first characters of the secret, to tell keys apart
    team_id: str | None
    pool_id: str | None
    pools: tuple[str, ...]
    expires_at: str | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    enabled: bool
    created_at: str
    last_used_at: str | None  # time of its newest stored request
    revoked_at: str | None


class MintedKey(ProxyKeyRow):
    """A new proxy key with its secret, which no other response contains."""

    secret: str


ProxyKeysPage = page_of("ProxyKeysPage", ProxyKeyRow)
