"""Limits per minute and budgets as the routing functions read them: what
services/router/functions/budgets.lua decides, in Python. Pure."""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from libs.common.budgets import Budget, Window, window_at
from libs.common.contracts.events import END_OF_TIME_MS

UNKNOWN, KNOWN, RECOUNTING = range(3)  # how sure a spend is
LEVELS = ("", "soft", "exhausted")


class _Budget(msgspec.Struct, omit_defaults=True):
    """A budget, as Lua reads it."""

    subject: str
    kind: str
    starts: int
    ends: int
    soft: int
    tokens: int | None = None
    nanos: int | None = None
    reserve: bool = False


class _Quota(msgspec.Struct, omit_defaults=True):
    id: str
    key: str
    budgets: list[_Budget]
    rpm: int | None = None
    tpm: int | None = None


_encode = msgspec.json.Encoder().encode
# What was counted for a key when a request was admitted, as acquire encodes it:
# requests and tokens of the minute, then tokens and billionths of a dollar spent in
# each budget. By the number of budgets:
LEFT = (struct.Struct("<2q"), struct.Struct("<4q"), struct.Struct("<6q"))


class Heard:
    """What this process heard of the spend of a key, and what the key used since. No
    msgspec struct: those take longer to change."""

    __slots__ = ("left", "nanos", "tokens")

    def __init__(self) -> None:
        self.left = b""  # as `LEFT`; empty: nothing
        self.tokens = 0
        self.nanos = 0


class Quota(msgspec.Struct, frozen=True, gc=False):
    """The limits of a key, as of a moment: those per minute, and the windows of the
    budgets. `text`: for the functions, which know it by `id`; `ends_ms`: when the first
    window ends."""

    key_id: str
    id: str
    text: str
    ends_ms: int
    requests_per_minute: int | None
    tokens_per_minute: int | None
    budgets: tuple[Budget, ...]
    starts: tuple[int, ...]  # of the windows, in the order of the budgets
    ends: tuple[int, ...]
    reserves: bool = False  # a request holds what it may use until it ends
    left_size: int = 16  # of what acquire tells, in bytes
    heard: Heard | None = None  # None without a budget


def quota_at(
    key_id: str,
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
    budgets: tuple[Budget, ...],
    now_ms: int,
) -> Quota:
    """The limits of a key for requests that are accepted now."""
    windows = [window_at(b.window, b.time_zone, now_ms) for b in budgets]
    encoded = _Quota(
        "",
        key_id,
        [_in_window(b, window) for b, window in zip(budgets, windows, strict=True)],
        requests_per_minute,
        tokens_per_minute,
    )
    encoded.id = hashlib.blake2b(_encode(encoded), digest_size=12).hexdigest()
    return Quota(
        key_id,
        encoded.id,
        _encode(encoded).decode(),
        min((window.end_ms for window in windows), default=END_OF_TIME_MS),
        requests_per_minute,
        tokens_per_minute,
        budgets,
        tuple(window.start_ms for window in windows),
        tuple(window.end_ms for window in windows),
        any(b.reserve and b.tokens is not None for b in budgets),
        LEFT[len(budgets)].size,
        Heard() if budgets else None,
    )


def _in_window(budget: Budget, window: Window) -> _Budget:
    return _Budget(
        *(budget.subject, budget.kind, window.start_ms, window.end_ms),
        *(budget.soft_percent, budget.tokens, budget.nanos, budget.reserve),
    )


def encoded_at(budget: Budget, now_ms: int) -> bytes:
    """A budget in its current window, for count_v1."""
    window = window_at(budget.window, budget.time_zone, now_ms)
    return _encode(_in_window(budget, window))


def spent_of(left: bytes, budgets: int) -> Sequence[tuple[int, int]]:
    """Tokens and billionths of a dollar that were spent in each of so many budgets."""
    _, _, *spent = LEFT[budgets].unpack_from(left)
    return list(zip(spent[::2], spent[1::2], strict=True))


@dataclass(frozen=True, slots=True)
class Spend:
    """What was spent in a window. `sure`: UNKNOWN while Redis lacks what was spent
    before it was emptied."""

    subject: str
    window_start_ms: int
    window_end_ms: int
    tokens: int
    nanos: int
    reserved: int
    sure: int


def spent_at(
    budget: Budget, spend: Spend | None, now_ms: int
) -> tuple[int, int] | None:
    """Tokens and billionths of a dollar that are spent in the current window of a
    budget. None while Redis does not know."""
    if spend is None or spend.sure == UNKNOWN:
        return None
    window = window_at(budget.window, budget.time_zone, now_ms)
    if (spend.window_start_ms, spend.window_end_ms) == window:
        return spend.tokens, spend.nanos
    # After a window that is known another one begins with nothing.
    return (0, 0) if spend.window_end_ms <= window.start_ms else None


def unknown_in(
    budgets: Sequence[Budget], spends: Sequence[Spend | None], now_ms: int
) -> list[Budget]:
    """Those of which Redis does not know what is spent. `spends`: of each one."""
    return [
        budget
        for budget, spend in zip(budgets, spends, strict=True)
        if spent_at(budget, spend, now_ms) is None
    ]


def spend_of(subject: str, told: str) -> Spend | None:
    """As spend_v2 encodes it."""
    if not told:
        return None
    _, *numbers = told.split(" ")
    return Spend(subject, *map(int, numbers))


@dataclass(frozen=True, slots=True)
class Recount:
    """A window that has to be summed anew. `since`: identifies the doubt."""

    subject: str
    since: str
    start_ms: int
    end_ms: int
    reserves: bool = False

    @property
    def named(self) -> tuple[str, str]:
        return self.subject, self.since


class Noted(NamedTuple):
    """What is noted while a window is summed. `resent`: how many events were sent again
    until then; `ids`: of all requests."""

    resent: int
    ids: set[str]


class Sum(NamedTuple):
    """What SQL has of a window: tokens, and billionths of a dollar. `newest`: up to
    which row of `shard_spend` they include what other shards spent."""

    tokens: int
    nanos: int
    newest: int = 0


# The rules -----------------------------------------------------------------------


@dataclass(slots=True)
class State:
    """The spend of a budget in a window."""

    starts: int
    ends: int
    sure: int = UNKNOWN
    tokens: int = 0
    nanos: int = 0
    reserved: int = 0
    level: int = 0

    def at(self, starts: int, ends: int) -> "State":
        """The state for requests of a window. One that follows a known one begins with
        nothing spent; what is later stays."""
        if self.starts >= starts:
            return self
        known = self.sure == KNOWN and starts >= self.ends
        return State(starts, ends, KNOWN if known else UNKNOWN)


def exhausted(budget: Budget, tokens: int, nanos: int) -> str | None:
    """`tokens` or `usd` if that much is spent."""
    if budget.tokens is not None and tokens >= budget.tokens:
        return "tokens"
    if budget.nanos is not None and nanos >= budget.nanos:
        return "usd"
    return None


def refusal(budget: Budget, state: State, amount: int = 0) -> str | None:
    """Why a request that may use up to `amount` tokens is refused, or None."""
    if state.sure == UNKNOWN or (state.sure == RECOUNTING and budget.reserve):
        return "spend_unknown"
    if exhausted(budget, state.tokens, state.nanos):
        return "budget_spent"
    if budget.reserve and budget.tokens is not None:
        if state.tokens + amount > budget.tokens:
            return "budget_spent"
        if state.tokens + state.reserved + amount > budget.tokens:
            return "budget_reserved"
    return None


def level(budget: Budget, tokens: int, nanos: int) -> int:
    """The threshold that is passed: 0 none, 1 soft, 2 the limit."""
    if exhausted(budget, tokens, nanos):
        return 2
    shares = _shares(budget, tokens, nanos)
    return 1 if max(shares) * 100 >= budget.soft_percent else 0


def _shares(budget: Budget, tokens: int, nanos: int) -> Sequence[float]:
    of = ((budget.tokens, tokens), (budget.nanos, nanos))
    return [spent / limit for limit, spent in of if limit is not None]
