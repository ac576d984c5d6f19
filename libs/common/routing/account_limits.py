"""Limits of accounts, for each model: the rules of services/router/functions/
account_limits.lua in Python. Pure; times are Unix milliseconds.

They are a preference: an account that cannot take a request is passed over while
another can."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from libs.common.contracts.rate_limits import LONGEST_MS

_T = TypeVar("_T")

UNLIMITED = 9e15
ASK_AGAIN_MS = 1_000  # one request goes to a limited account in this time
MOST_LIMITED = 500  # models with limits; clients choose model names
PLENTY = 50  # percent: from there on limits are noted less often
SPARSE = 4  # below a fourth of a limit each request is subtracted


@dataclass(slots=True)
class Limit:
    """Of requests or of tokens. 0: not known."""

    limit: float = 0
    remaining: float = UNLIMITED
    reset_at: float = 0

    @property
    def share(self) -> int:
        """What remains, in whole percent: noise of less does not outweigh the draw."""
        return int(100 * self.remaining // self.limit) if self.limit else 100

    def ends(self) -> float:
        return self.reset_at if self.limit else 0

    @property
    def is_sparse(self) -> bool:
        return self.remaining * SPARSE < self.limit


@dataclass(slots=True)
class AccountLimits:
    """Of one model in an account. `told_at`: when the upstream said so. `asked_at`:
    when a request went there although the account could not take it."""

    told_at: float
    requests: Limit = field(default_factory=Limit)
    tokens: Limit = field(default_factory=Limit)
    asked_at: float = 0

    @property
    def share(self) -> int:
        return min(100, self.requests.share, self.tokens.share)

    @property
    def ends(self) -> float:
        return max(self.requests.ends(), self.tokens.ends())


def full_until(
    limits: AccountLimits | None, tokens: int, now: float, *, in_spite: bool = False
) -> float | None:
    """When the limit resets of an account that cannot take a request before; None if it
    can. Not known for certain, so ASK_AGAIN_MS after the upstream said it, or the
    account was last asked, the next request may find out (not with `in_spite`)."""
    if limits is None:
        return None
    until = 0.0
    if limits.requests.remaining < 1:
        until = limits.requests.reset_at
    if limits.tokens.remaining < min(tokens, limits.tokens.limit):
        until = max(until, limits.tokens.reset_at)
    if not now < until <= now + LONGEST_MS:  # further away: a clock jumped
        return None
    asked = max(limits.told_at, limits.asked_at)
    if not in_spite and (asked <= now - ASK_AGAIN_MS or asked > now):
        return None
    return until


def take(limits: AccountLimits, tokens: int, now: float) -> bool:
    """Subtract a request from what remains, because many may begin before the upstream
    says it again. Returns False if so much remains that this does not matter."""
    few = limits.tokens.remaining * SPARSE < limits.tokens.limit + tokens * SPARSE
    if not limits.requests.is_sparse and not few:
        return False
    if full_until(limits, tokens, now, in_spite=True) is not None:
        limits.asked_at = now
        # If the limit resets before the answer tells what is left, one request goes
        # there all the same, and not all that come meanwhile.
        for limit in (limits.requests, limits.tokens):
            limit.reset_at = max(limit.reset_at, now + ASK_AGAIN_MS)
    if limits.requests.limit:
        limits.requests.remaining = max(limits.requests.remaining - 1, 0)
    if limits.tokens.limit:
        limits.tokens.remaining = max(limits.tokens.remaining - tokens, 0)
    return True


def learned(
    before: AccountLimits | None, told: str, now: float
) -> AccountLimits | None:
    """What is known after an upstream said `told`; `before` when that is newer. As long
    as plenty is left, once a second is enough."""
    if before is not None and before.ends <= now:
        before = None
    numbers = [int(number) for number in told.split()]
    at = now - numbers[0]
    if before is not None and at < before.told_at <= now:
        return before
    found = AccountLimits(at, asked_at=before.asked_at if before else 0)
    for given, limit in (
        (numbers[1:4], found.requests),
        (numbers[4:7], found.tokens),
    ):
        if given[0] >= 0 and at + given[2] > now:
            limit.limit, limit.remaining = given[0], given[1]
            limit.reset_at = at + given[2]
    recent = before is not None and before.told_at <= now
    if before is not None and recent and at < before.told_at + ASK_AGAIN_MS:
        return before if min(before.share, found.share) >= PLENTY else found
    return found


class LimitTable:
    """The limits of all models, by digest and account."""

    def __init__(self) -> None:
        self._models: dict[str, dict[str, AccountLimits]] = {}

    @property
    def ends(self) -> list[float]:
        """When limits reset."""
        known = [found.values() for found in self._models.values()]
        return [limits.ends for each in known for limits in each]

    def of(self, model: str, now: float) -> Mapping[str, AccountLimits]:
        """Account -> limits."""
        found = self._models.get(model)
        if found and max(limits.ends for limits in found.values()) <= now:
            del self._models[model]
            return {}
        return found or {}

    def learn(self, model: str, account: str, told: str, now: float) -> None:
        if not model:
            return
        found = dict(self.of(model, now))
        limits = learned(found.get(account), told, now)
        if limits is not None:
            found[account] = limits
        self._keep(model, found, now)

    def took(self, model: str, account: str, tokens: int, now: float) -> None:
        """A request went to the account."""
        found = dict(self.of(model, now))
        limits = found.get(account)
        if limits is not None and take(limits, tokens, now):
            self._keep(model, found, now)

    def _keep(self, model: str, found: dict[str, AccountLimits], now: float) -> None:
        kept = {name: limits for name, limits in found.items() if limits.ends > now}
        self._models.pop(model, None)
        if kept:
            self._models[model] = kept
        if len(self._models) > MOST_LIMITED:
            del self._models[min(self._models, key=self._ends)]

    def _ends(self, model: str) -> float:
        return max(limits.ends for limits in self._models[model].values())


def most_left(ties: Sequence[_T], shares: Sequence[int]) -> Sequence[_T]:
    """Those whose accounts have the largest share of their limits left."""
    best = max(shares, default=100)
    return [tie for tie, share in zip(ties, shares, strict=True) if share == best]
