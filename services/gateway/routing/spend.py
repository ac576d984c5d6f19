"""What clients are told of the limits of their keys, and what this gateway knows of the
spend of budgets, for when Redis does not: what the last acquire of a key said, and what
this gateway used since."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

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
MINUTE_S = 65  # what limits per minute count: a minute and a slot


class SpendMemory:
    """Of this process."""

    def __init__(self, quotas: Iterable[Quota] = ()) -> None:
        """`quotas`: the limits of keys that asked here."""
        self._quotas = quotas

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
        for told in self._quotas:
            heard = told.heard
            if heard is None or not heard.left:
                continue
            spent = spent_of(heard.left, len(told.budgets))
            for budget, start, own in zip(
                told.budgets, told.starts, spent, strict=True
            ):
                if (budget.subject, start) in wanted:
                    total = own[0] + heard.tokens, own[1] + heard.nanos
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


# How limits of tokens are written: the place of what was counted, the limit, when it
# ends (0: with its minute), and the lines.
_Tokens = tuple[int, int, int, bytes]
# How the limits of a key are written: how to read what was counted, the requests per
# minute, the first limit of tokens, and the others.
_Lines = tuple[Callable[[bytes], tuple[Any, ...]], int, _Tokens, tuple[_Tokens, ...]]


def limit_lines(quota: Quota, left: bytes, now_ms: int) -> bytes:
    """The same as lines for the wire."""
    unpack, requests, tokens, others = _LINES.get(quota.id) or _lines_of(quota)
    counted = unpack(left)
    place, limit, ends_ms, lines = tokens
    rest = limit - counted[place]
    for other in others:
        if other[1] - counted[other[0]] < rest:
            place, limit, ends_ms, lines = other
            rest = limit - counted[place]
    if rest < 0:  # noqa: PLR1730 - `max` takes thrice as long
        rest = 0  # responses under way exceed it
    if not ends_ms:
        return lines % (requests - counted[0], rest)
    return lines % (requests - counted[0], rest, (ends_ms - now_ms) // 1000)


def _lines_of(quota: Quota) -> _Lines:
    requests = quota.requests_per_minute
    limits = [(1, quota.tokens_per_minute, 0)]
    for place, budget in enumerate(quota.budgets):
        limits.append((2 + 2 * place, budget.tokens, quota.ends[place]))
    above = b"%.0a" if requests is None else _REQUESTS % requests
    tokens = [
        (place, limit, ends_ms, above + (_TOKENS if ends_ms else _OF_MINUTE) % limit)
        for place, limit, ends_ms in limits
        if limit is not None
    ] or [(1, 0, 0, above + b"%.0a")]
    lines = (
        LEFT[len(quota.budgets)].unpack_from,
        requests or 0,
        tokens[0],
        tuple(tokens[1:]),
    )
    if len(_LINES) >= MOST_KEPT:
        _LINES.clear()
    _LINES[quota.id] = lines
    return lines


_LINES: dict[str, _Lines] = {}  # by the id of the limits
_REQUESTS = (
    b"x-ratelimit-limit-requests: %d\r\n"
    b"x-ratelimit-remaining-requests: %%d\r\n"
    b"x-ratelimit-reset-requests: "
) + b"%ds\r\n" % MINUTE_S
_TOKENS = (
    b"x-ratelimit-limit-tokens: %d\r\n"
    b"x-ratelimit-remaining-tokens: %%d\r\n"
    b"x-ratelimit-reset-tokens: %%ds\r\n"
)
_OF_MINUTE = _TOKENS.replace(b"%%ds", b"%ds" % MINUTE_S)
