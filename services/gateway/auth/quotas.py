"""The limits of proxy keys as of now: in which windows their budgets are."""

from collections.abc import Iterator

from libs.common.proxy_keys import Principal
from libs.common.routing.budgets import Quota, quota_at

MOST_KEPT = 65_536


class Quotas:
    """Encodes the limits of a key once, until the first window of its budgets ends or
    the key changes."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Principal, Quota]] = {}

    def __iter__(self) -> Iterator[Quota]:
        """All that are kept."""
        for _, quota in self._kept.values():
            yield quota

    def of(self, principal: Principal, at_ms: int) -> Quota:
        """The limits of a key for a request that is accepted at this moment."""
        kept = self._kept.get(principal.id)
        if kept is not None:
            owner, quota = kept
            if owner is principal and at_ms < quota.ends_ms:
                return quota
        quota = quota_at(
            principal.id,
            principal.requests_per_minute,
            principal.tokens_per_minute,
            principal.budgets,
            at_ms,
        )
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[principal.id] = principal, quota
        return quota
