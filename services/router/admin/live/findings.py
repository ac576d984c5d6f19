"""What is wrong, in words: which part, and what an operator does about it
(docs/runbook.md). Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, get_args
from urllib.parse import quote

from libs.common.budgets import Budget
from libs.common.contracts.catalogue import HealthState, ModelLimits, ResourceState
from libs.common.proxy_keys import Principal
from services.router.admin.schemas.attention import AttentionItem, Kind
from services.router.admin.schemas.state import Ledger

SCARCE = 0.05  # of an account's limit, as the alert AccountLimitNear has it
MOST_OF_A_KIND = 50


Used = tuple[Principal, int, int]  # a key, its requests and tokens of the last minute


class Words(NamedTuple):
    text: str
    to_do: str


# Of parts that are impaired: those of the router, and those that gateways name.
_PARTS: Mapping[str, Words] = {
    "redis": Words(
        "Redis does not answer. Gateways serve from their last catalogue and their own "
        "counts, and keep events in their journals; limits per minute of proxy keys "
        "are not enforced.",
        "Bring Redis back, empty or not: nothing needs to be restored.",
    ),
    "database": Words(
        "The database does not answer. Traffic continues; events wait in Redis.",
        "Bring the database back before Redis is full. Ingest catches up on its own.",
    ),
    "health": Words(
        "No health service checks the upstream keys; only answers judge them.",
        "Start the health service, and see whether it reaches Redis. With "
        "PROXY_HEALTH_CHECK_ENABLED=false set it for routers too.",
    ),
    "resources": Words(
        "Every upstream key is cooling down or refused. Clients get 503 no_capacity, "
        "or the upstream's last error.",
        "Look for what the keys have in common: the network, the HTTP proxy, an "
        "incident of the provider. Replace refused keys, or add keys of other "
        "accounts.",
    ),
    "journal": Words(
        "Its journal is in memory only: the disk of PROXY_DATA_DIR is full or "
        "read-only. If this gateway is killed, what is not in the database is lost.",
        "Make room on that disk. The gateway writes again on its own.",
    ),
    "ledger": Words(
        "Its journal was full and dropped its oldest records. Their requests are "
        "missing in the database.",
        "Bring back what is away (Redis, the database), then raise "
        "PROXY_JOURNAL_MAX_BYTES.",
    ),
    "recovery": Words(
        "Records in the journal of a crashed gateway could not be read. Their requests "
        "are stored as interrupted.",
        "Check the disk. The line journal_corrupt in the log names the journal.",
    ),
    "router": Words(
        "It cannot reach a router: through this gateway, the dashboard and /admin "
        "answer 503. Traffic continues.",
        "Check PROXY_ROUTER_URL of this gateway, and the network to the router.",
    ),
    "keys": Words(
        "It has not read the proxy keys yet, so it refuses requests with one.",
        "Check its connection to Redis.",
    ),
    "catalogue": Words(
        "It cannot read the catalogue of resources and uses the last one it read.",
        "Check that its version is not older than the router's, and its log.",
    ),
}
_UNKNOWN_PART = Words("It is impaired.", "See /readyz and the log of that process.")
_SILENT = Words(
    "This gateway sends no heartbeat, and no other gateway has recovered its journal, "
    "which may hold records that exist nowhere else.",
    "Start a gateway with that PROXY_DATA_DIR (the volume or host of the old one). If "
    "it is gone for good, its open requests count as lost after an hour.",
)
ORDER = {kind: n for n, kind in enumerate(get_args(Kind))}


def item(
    kind: Kind,
    subject: str,
    words: Words,
    link: str | None = "#/system",
    until: str | None = None,
) -> AttentionItem:
    return AttentionItem(
        kind=kind,
        subject=subject,
        since=None,
        until=until,
        text=words.text,
        to_do=words.to_do,
        link=link,
    )


def sorted_items(items: Iterable[AttentionItem]) -> list[AttentionItem]:
    return sorted(items, key=lambda each: (ORDER[each.kind], each.subject))


def of_parts(problems: Mapping[str, str]) -> Iterator[AttentionItem]:
    """Of what `RouterConditions` found."""
    for part, problem in problems.items():
        kind, _, gateway = part.partition(" ")
        if kind == "gateways":
            yield item("gateway_silent", gateway, _SILENT)
        elif part == "ingest":
            words = Words(
                f"Ingest does not store what gateways send: {problem}.",
                "Look at the ingest processes, then at the database. Nothing is lost "
                "while Redis has room.",
            )
            yield item("backlog", part, words)
        elif part == "prices":
            words = Words(
                f"{problem.capitalize()}.",
                "PUT a price for each model to /admin/prices, or add it to "
                "PROXY_PRICES_FILE.",
            )
            yield item("degraded", part, words)
        elif part == "shards":
            words = Words(
                f"{problem[0].upper()}{problem[1:]}. Their gateways' requests are in "
                "one ledger, but neither shard adds what the other one spends of "
                "budgets.",
                "Give each Redis a PROXY_REDIS_NAMESPACE of its own, or a database of "
                "its own to each stack.",
            )
            yield item("degraded", part, words)
        elif part in ("redis", "database", "health", "resources"):
            yield item("degraded", part, _PARTS[part])


def of_gateways(impaired: Mapping[str, Sequence[str]]) -> Iterator[AttentionItem]:
    """Of what gateways say of themselves, by gateway. What the router sees itself is
    left out."""
    for gateway, parts in impaired.items():
        for part in parts:
            if part not in ("redis", "key limits"):
                words = _PARTS.get(part, _UNKNOWN_PART)
                yield item("degraded", f"{part} of gateway {gateway}", words)


def of_ledger(ledger: Ledger) -> Iterator[AttentionItem]:
    if ledger.problems:
        words = Words(
            "; ".join(ledger.problems)[:500],
            "GET /admin/ledger names the gateway. A request that is missing was lost "
            "with a journal, or deleted from the database; one that is stored twice is "
            "a bug: please report it.",
        )
        yield item("ledger_open", "ledger", words)
    if ledger.dead_lettered:
        words = Words(
            f"{ledger.dead_lettered} records of requests could not be stored and are "
            "kept aside.",
            "Run `responses-proxy dead-letters`: it lists them with the reason, and "
            "replays them once that is fixed.",
        )
        yield item("dead_letters", "dead letters", words)


def of_resources(resources: Iterable[ResourceState]) -> Iterator[AttentionItem]:
    for resource in resources:
        link = _link("resources", resource.id)
        told = f" Last error: {resource.last_error}." if resource.last_error else ""
        if resource.health == HealthState.UNHEALTHY:
            words = Words(
                f"The upstream refuses this key.{told}",
                "Replace the key, or remove the resource.",
            )
            yield item("resource_unhealthy", resource.id, words, link)
        elif resource.health == HealthState.DEGRADED:
            words = Words(
                f"This key is in a cooldown; others serve meanwhile.{told}",
                "Wait for the end of the cooldown. If it returns: add credit for "
                "insufficient_quota, keys of other accounts for rate limits; for 5xx "
                "and timeouts look at the provider.",
            )
            until = resource.cooldown_until
            yield item("resource_cooling", resource.id, words, link, until)


def of_accounts(resources: Iterable[ResourceState]) -> Iterator[AttentionItem]:
    """The scarcest, if many are."""
    scarce: dict[tuple[str, str], tuple[float, str, ModelLimits]] = {}
    for resource in resources:
        for limits in resource.limits:
            left = share_left(limits)
            if left < SCARCE:
                scarce[resource.account_id, limits.model] = left, resource.id, limits
    ordered = sorted(scarce.items(), key=lambda pair: (pair[1][0], pair[0]))
    for (account, model), (_, resource_id, limits) in ordered[:MOST_OF_A_KIND]:
        words = Words(
            "Less than 5 % of this account's limit is left for the model: "
            f"{_left(limits)}. Requests go to other accounts while those can serve.",
            "Ask the provider for a higher limit, add an account, or limit tenants.",
        )
        until = max(
            filter(None, (limits.requests_reset_at, limits.tokens_reset_at)),
            default=None,
        )
        link = _link("resources", resource_id)
        yield item("account_limit", f"{account}, {model}", words, link, until)


def of_tenants(used: Iterable[Used]) -> Iterator[AttentionItem]:
    """Of the keys that have reached a limit, MOST_OF_A_KIND at most."""
    reached = [(key, full) for key, *counts in used if (full := _full(key, *counts))]
    for key, full in reached[:MOST_OF_A_KIND]:
        team = f" of team {key.team_id}" if key.team_id else ""
        words = Words(
            f"This proxy key{team} has used its {' and '.join(full)} of this minute; "
            "further requests get 429 rate_limit_exceeded.",
            "Nothing, if the limit is meant. Otherwise raise requests_per_minute or "
            "tokens_per_minute of the key.",
        )
        yield item("tenant_limit", key.id, words, _link("keys", key.id))


def of_budgets(spent: Iterable[Budget]) -> Iterator[AttentionItem]:
    """Of budgets that are spent, MOST_OF_A_KIND at most."""
    for budget in islice(spent, MOST_OF_A_KIND):
        kind, _, id_ = budget.subject.partition(":")
        words = Words(
            f"The budget of this {'proxy key' if kind == 'key' else kind} is spent; "
            "further requests get 429 insufficient_quota until its next window begins.",
            f"Nothing, if the budget is meant. Otherwise raise it at the {kind}.",
        )
        link = _link("keys", id_) if kind == "key" else "#/keys"
        yield item("tenant_limit", budget.subject, words, link)


def _full(key: Principal, requests: int, tokens: int) -> list[str]:
    """The limits that a key has reached."""
    counted = (
        ("requests", key.requests_per_minute, requests),
        ("tokens", key.tokens_per_minute, tokens),
    )
    return [f"{limit} {name}" for name, limit, n in counted if limit and n >= limit]


def share_left(limits: ModelLimits) -> float:
    """The smaller part of a limit that is left."""
    return min((left / limit for _, left, limit in _known(limits)), default=1.0)


def _left(limits: ModelLimits) -> str:
    return " and ".join(f"{n} of {limit} {name}" for name, n, limit in _known(limits))


def _known(limits: ModelLimits) -> list[tuple[str, int, int]]:
    """What is left of the limits that are known, and those."""
    told = (
        ("requests", limits.remaining_requests, limits.limit_requests),
        ("tokens", limits.remaining_tokens, limits.limit_tokens),
    )
    return [(n, left, limit) for n, left, limit in told if left is not None and limit]


def _link(view: str, id_: str) -> str:
    return f"#/{view}/{quote(id_, safe='')}"
