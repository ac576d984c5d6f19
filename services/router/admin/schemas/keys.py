"""Proxy keys, their teams, and the policies of both."""

from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, AwareDatetime, Field
from pydantic.json_schema import SkipJsonSchema

from libs.common.budgets import MOST_TOKENS, MOST_USD, SOFT_PERCENT, WindowKind
from libs.common.contracts.catalogue import Frozen
from services.router.admin.schemas.changes import Change
from services.router.admin.schemas.pages import Limit, page_of

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
MOST_RULES = 100  # entries of each list of a policy


def _network(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError:
        raise ValueError(
            "use a network without host bits, such as 10.1.0.0/16, or an address"
        ) from None


ModelGlob = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_.:/@*?\[\]!+-]+$", max_length=200)
]
Endpoint = Annotated[str, Field(pattern=r"^[a-z0-9_-]+(/[a-z0-9_-]+)*$", max_length=60)]
Tier = Annotated[str, Field(pattern=r"^[a-z0-9_-]+$", max_length=40)]
Network = Annotated[str, Field(max_length=50), AfterValidator(_network)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


def _time_zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError("use an IANA name, such as Europe/Berlin")
    return value


BudgetUsd = Annotated[float, Field(gt=0, le=MOST_USD, allow_inf_nan=False)]
BudgetTokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
SoftPercent = Annotated[int, Field(ge=1, le=100)]
TimeZone = Annotated[str, Field(max_length=64), AfterValidator(_time_zone)]


class BudgetAsk(Frozen):
    """The budget of a key or a team: what all its requests may use in a window, in
    dollars by the price list, in tokens, or both. docs/budgets.md explains them."""

    budget_usd: BudgetUsd | None = None
    budget_tokens: BudgetTokens | None = None
    budget_window: WindowKind = "month"
    budget_time_zone: TimeZone = "UTC"
    budget_soft_percent: SoftPercent = SOFT_PERCENT
    budget_reserve: bool = False


class SpendView(Frozen):
    """What was spent in the current window."""

    usd: float
    tokens: int


class BudgetRow(Frozen):
    """The same in a row. spend: null without a budget, or while it is not known."""

    budget_usd: float | None
    budget_tokens: int | None
    budget_window: WindowKind
    budget_time_zone: str
    budget_soft_percent: int
    budget_reserve: bool
    spend: SpendView | None = None


class PolicyAsk(Frozen):
    """What requests may ask for; a rule that is absent allows everything. models:
    globs, of which one must match the name that the request has or the one that is sent
    upstream. endpoints: below /v1, such as `responses`, each with all paths below it;
    `models` is always allowed. max_reasoning_effort: a request without an effort counts
    as medium. service_tiers: `auto` and none are always allowed, because the upstream's
    project decides then. max_output_tokens: requests for an answer must state a limit
    that is not higher. ip_allow: networks of clients; behind a balancer see
    PROXY_TRUSTED_PROXIES."""

    models: Annotated[tuple[ModelGlob, ...], Field(max_length=MOST_RULES)] = ()
    endpoints: Annotated[tuple[Endpoint, ...], Field(max_length=MOST_RULES)] = ()
    max_reasoning_effort: Effort | None = None
    service_tiers: Annotated[tuple[Tier, ...], Field(max_length=MOST_RULES)] = ()
    max_output_tokens: Annotated[int, Field(ge=1, le=10**9)] | None = None
    ip_allow: Annotated[tuple[Network, ...], Field(max_length=MOST_RULES)] = ()


def stored_fields(body: Frozen, *, only_sent: bool = False) -> dict[str, Any]:
    """The columns that a body sets. Its policy is JSON, without rules that allow
    everything."""
    fields = dict(body)
    for name in ("policy", "key_defaults"):
        if (part := fields.get(name)) is not None:
            fields[name] = part.model_dump(mode="json", exclude_defaults=True) or None
    if only_sent:
        fields = {name: fields[name] for name in body.model_fields_set}
    return fields


class MintAsk(BudgetAsk):
    """A new proxy key. team_id: keys of one team share the responses, conversations,
    files and other objects that they create; a key without a team shares with none.
    pool_id: every request goes to this pool. pools: the pools that requests may name;
    the first is the default, an empty list allows all. Limits apply over all gateways
    together. budget_*: what its requests may use in a window. queue_weight: its share
    where requests wait for upstream keys, compared with other keys. policy: both the
    key's and its team's must allow a request."""

    name: KeyName = ""
    team_id: TeamId | None = None
    pool_id: PoolId | None = None
    pools: KeyPools = ()
    expires_at: Expiry | None = None
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    queue_weight: Annotated[float, Field(ge=0.001, le=1000)] = 1.0
    policy: PolicyAsk | None = None


class KeyChange(Change, MintAsk):
    """Fields that are sent are changed; null removes a limit."""

    enabled: bool = True


class ProxyKeyRow(BudgetRow):
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
    queue_weight: float
    policy: PolicyAsk | None
    enabled: bool
    created_at: str
    version: str = ""  # for If-Match; another one after each change
    last_used_at: str | None  # time of its newest stored request
    revoked_at: str | None


class MintedKey(ProxyKeyRow):
    """A new proxy key with its secret, which no other response contains."""

    secret: str


ProxyKeysPage = page_of("ProxyKeysPage", ProxyKeyRow)


class KeyDefaults(BudgetAsk):
    """Fields of a new key whose creation does not say them. Keys that exist stay as
    they are, and each key may have others. budget_*: each key has a budget of its own.
    """

    pool_id: PoolId | None = None
    pools: KeyPools = ()
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    queue_weight: Annotated[float, Field(ge=0.001, le=1000)] | None = None


class TeamAsk(BudgetAsk):
    """A team: keys with its `team_id` share what they create, its policy holds for all
    of them, and its budget is one for all of them together."""

    id: TeamId
    name: KeyName = ""
    policy: PolicyAsk | None = None
    key_defaults: KeyDefaults | None = None


class TeamChange(Change, BudgetAsk):
    """Fields that are sent are changed; null removes the policy, the defaults or a
    budget."""

    name: KeyName = ""
    policy: PolicyAsk | None = None
    key_defaults: KeyDefaults | None = None


class TeamRow(BudgetRow):
    """A row of `teams`."""

    id: str
    name: str
    policy: PolicyAsk | None
    key_defaults: KeyDefaults | None = None
    version: str = ""  # for If-Match; another one after each change
    keys: int  # that are not revoked
    created_at: str


class TeamMember(Frozen):
    """A key of a team, and what it used in the last 30 days while it was in the team. A
    revoked key that used something has only its id."""

    id: str
    name: str | None = None
    prefix: str | None = None
    enabled: bool = False
    last_used_at: str | None = None
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0


class TeamUsage(Frozen):
    """What all keys of a team used since then."""

    since: str
    requests: int
    input_tokens: int
    output_tokens: int
    total_tokens: int


class OneTeamRow(TeamRow):
    """A team with its keys; at most 1,000 are listed."""

    members: tuple[TeamMember, ...]
    usage: TeamUsage


class TeamsPage(Frozen):
    """Teams by id; pass `next_after` as `after` for the next ones."""

    data: list[TeamRow]
    next_after: str | None


class TeamsFilter(Frozen):
    """Which page of teams."""

    limit: Limit = 100
    after: TeamId | SkipJsonSchema[None] = Field(
        None, description="`next_after` of the page before."
    )
