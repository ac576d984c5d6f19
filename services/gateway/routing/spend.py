"""What clients are told of the limits of their keys, and what this gateway knows of the
spend of budgets, for when Redis does not: what the last acquire of a key said, and what
this gateway used since."""

from datetime import UTC, datetime

import msgspec

from libs.common.budgets import Budget
from libs.common.contracts.events import END_OF_TIME_MS
from libs.common.contracts.prices import NANOS
from libs.common.headers import Header
from libs.common.routing.budgets import LEFT, Quota, exhausted, spent_of
from libs.common.routing.types import (
    BudgetRefused,
    BudgetReserved,
    BudgetSpent,
    KeyLimited,
    QuotaRefused,
    SpendUnknown,
)
from services.gateway import errors
from services.gateway.errors import Problem

MOST_KEPT = 65_536
MINUTE_MS = 65_000  # what limits per minute count: a minute and a slot


class _Known(msgspec.Struct, gc=False):
    """The limits of a key as of then, what was counted, and what was used since."""

    quota: Quota
    left: bytes
    tokens: int = 0
    nanos: int = 0


class SpendMemory:
    """Of this process."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}  # by key

    def told(self, quota: Quota, left: bytes) -> None:
        """A request of a key was admitted, with what was left."""
        if not quota.budgets:
            return
        if len(self._known) >= MOST_KEPT:
            self._known.clear()
        self._known[quota.key_id] = _Known(quota, left)

    def used(self, quota: Quota, tokens: int, nanos: int) -> None:
        """A request of a key ended."""
        known = self._known.get(quota.key_id)
        if known is not None:
            known.tokens += tokens
            known.nanos += nanos

    def check(self, quota: Quota) -> None:
        """Raises `BudgetSpent` for a budget of which at least that much is spent, and
        `SpendUnknown` for one that reserves: it does not take the risk."""
        known = self._least(quota)
        for budget in quota.budgets:
            tokens, nanos = known.get(budget.subject, (0, 0))
            which = exhausted(budget, tokens, nanos)
            if which is not None:
                raise BudgetSpent(budget.subject, which)
            if budget.reserve and budget.tokens is not None:
                raise SpendUnknown(budget.subject)

    def _least(self, quota: Quota) -> dict[str, tuple[int, int]]:
        """Subject -> the least that is spent in the windows of `quota`. Other keys of
        its team may have heard more."""
        wanted = {
            (budget.subject, start)
            for budget, start in zip(quota.budgets, quota.starts, strict=True)
        }
        known: dict[str, tuple[int, int]] = {}
        for each in self._known.values():
            told, spent = each.quota, spent_of(each.left)
            for budget, start, own in zip(
                told.budgets, told.starts, spent, strict=True
            ):
                if (budget.subject, start) in wanted:
                    total = own[0] + each.tokens, own[1] + each.nanos
                    before = known.get(budget.subject, (0, 0))
                    known[budget.subject] = tuple(map(max, before, total))  # type: ignore[assignment]
        return known


# What clients are told -----------------------------------------------------------


def problem_of_quota(quota: Quota, refused: QuotaRefused, may_use: int) -> Problem:
    """The error for a request that the limits of its key do not allow."""
    if isinstance(refused, KeyLimited):
        of_requests = refused.which == "requests"
        limit = quota.requests_per_minute if of_requests else quota.tokens_per_minute
        return errors.key_limited(refused.which, limit or 0, refused.wait_ms)
    assert isinstance(refused, BudgetRefused)
    subjects = [budget.subject for budget in quota.budgets]
    place = subjects.index(refused.subject)
    budget, owner = quota.budgets[place], _owner(quota.budgets[place])
    if isinstance(refused, BudgetReserved):
        return errors.budget_reserved(owner)
    if isinstance(refused, SpendUnknown):
        return errors.spend_unknown(owner)
    assert isinstance(refused, BudgetSpent)
    end = _end(quota.ends[place])
    if refused.which == "rest":
        return errors.budget_nearly_spent(owner, refused.left, may_use, end)
    return errors.budget_spent(owner, _amount(budget, refused.which), end)


def _owner(budget: Budget) -> str:
    kind, _, id_ = budget.subject.partition(":")
    return f"{kind} {(budget.name or id_)[:100]!r}"


def _amount(budget: Budget, which: str) -> str:
    if which == "usd":
        usd = (budget.nanos or 0) / NANOS
        amount = f"${usd:,.2f}" if usd >= 0.01 else f"${usd:g}"
    else:
        amount = f"{budget.tokens or 0:,} tokens"
    return amount if budget.window == "total" else f"{amount} a {budget.window}"


def _end(end_ms: int) -> str:
    if end_ms >= END_OF_TIME_MS:
        return "It does not fill again."
    end = datetime.fromtimestamp(end_ms / 1000, UTC)
    return f"The next one begins at {end:%Y-%m-%dT%H:%M:%SZ}."


def limit_headers(quota: Quota, left: bytes, now_ms: int) -> list[Header]:
    """The key's own limits, as the upstream names its limits. Its figures would
    mislead."""
    lines = limit_lines(quota, left, now_ms).split(b"\r\n")[:-1]
    return [
        (name, value) for name, _, value in (line.partition(b": ") for line in lines)
    ]


class _Lines(msgspec.Struct, gc=False):
    """How the limits of a key are written: which tokens are limited (the place of what
    was counted, the limit, and when it ends), and the lines for each of them."""

    requests: int | None
    tokens: list[tuple[int, int, int, bytes]]


def limit_lines(quota: Quota, left: bytes, now_ms: int) -> bytes:
    """The same as lines for the wire."""
    lines = _LINES.get(quota.id) or _lines_of(quota)
    counted = LEFT[len(quota.budgets)].unpack(left)
    least, reset_ms, template, written = _ENDLESS, 0, b"", b""
    for place, limit, ends_ms, own in lines.tokens:
        rest = limit - counted[place]
        if rest < least:
            least, reset_ms, template = rest, ends_ms or now_ms + MINUTE_MS, own
    if lines.requests is not None:
        written = _REQUESTS % (lines.requests, lines.requests - counted[0])
    if template:
        reset = (reset_ms - now_ms) // 1000
        written += template % (max(least, 0), max(reset, 0))
    return written


def _lines_of(quota: Quota) -> _Lines:
    limits = [(1, quota.tokens_per_minute, 0)]
    for place, budget in enumerate(quota.budgets):
        limits.append((2 + 2 * place, budget.tokens, quota.ends[place]))
    lines = _Lines(
        quota.requests_per_minute,
        [
            (place, limit, ends_ms, _TOKENS.replace(b"LIMIT", b"%d" % limit))
            for place, limit, ends_ms in limits
            if limit is not None
        ],
    )
    if len(_LINES) >= MOST_KEPT:
        _LINES.clear()
    _LINES[quota.id] = lines
    return lines


_ENDLESS = float("inf")
_LINES: dict[str, _Lines] = {}  # by the id of the limits
_REQUESTS = (
    b"x-ratelimit-limit-requests: %d\r\n"
    b"x-ratelimit-remaining-requests: %d\r\n"
    b"x-ratelimit-reset-requests: "
) + b"%ds\r\n" % (MINUTE_MS // 1000)
_TOKENS = (
    b"x-ratelimit-limit-tokens: LIMIT\r\n"
    b"x-ratelimit-remaining-tokens: %d\r\n"
    b"x-ratelimit-reset-tokens: %ds\r\n"
)
