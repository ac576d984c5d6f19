"""What needs an operator now."""

from typing import Literal

from libs.common.contracts.catalogue import Frozen

Kind = Literal[
    "degraded",
    "resource_unhealthy",
    "ledger_open",
    "gateway_silent",
    "dead_letters",
    "backlog",
    "resource_cooling",
    "account_limit",
    "tenant_limit",
]


class AttentionItem(Frozen):
    """One thing that is wrong. `since` is null if it is not known; a router that was
    restarted knows only when it first noticed."""

    kind: Kind
    subject: str  # a resource, account, proxy key, gateway, or part of the proxy
    since: str | None
    until: str | None = None  # when it ends on its own
    text: str
    to_do: str
    link: str | None = None  # to the view of the dashboard


class AttentionList(Frozen):
    """The worst first; empty if nothing is wrong."""

    data: tuple[AttentionItem, ...]
    timestamp: str
