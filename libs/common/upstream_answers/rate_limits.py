"""What an upstream says of an account's limits: the headers `x-ratelimit-limit-*`,
`-remaining-*` and `-reset-*` of requests and of tokens, and the text of a 429
(docs/upstream-api.md). Pure."""

import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from libs.common.headers import Header, find

PREFIX: Final = b"x-ratelimit-"
LONGEST_MS = 3_600_000  # a later reset counts as this one
ABSURD_MS = 31 * 86_400_000  # a later one is not one
MOST = 10**15  # of requests or tokens
# Why a limit is ignored.
INCOMPLETE, NEGATIVE, ODD_NUMBER, ODD_UNIT, TOO_FAR = REASONS = (
    "incomplete",
    "negative",
    "odd_number",
    "odd_unit",
    "too_far",
)
_DURATION = re.compile(rb"(?:\d{1,12}(?:\.\d{1,12})?(?:ms|s|m|h|d))+")
_PART = re.compile(rb"([0-9.]+)(ms|s|m|h|d)")
_UNIT_MS = {b"ms": 1, b"s": 1_000, b"m": 60_000, b"h": 3_600_000, b"d": 86_400_000}
_OF_ACCOUNT = re.compile(
    r"Rate limit reached for .{0,200} in (?:organization|project) "
    # Azure: of a deployment, which all keys of the Azure resource share.
    r"|have exceeded (?:the )?\w+ rate limit (?:of|for) your current .{1,60} tier",
    re.IGNORECASE,
)
_OF_AZURE = b"apim-request-id"  # in its answers


class Told(msgspec.Struct, frozen=True, gc=False):
    """What an upstream said. Resets are milliseconds from then. A limit of -1 was not
    named."""

    limit_requests: int = -1
    remaining_requests: int = -1
    requests_reset_ms: int = -1
    limit_tokens: int = -1
    remaining_tokens: int = -1
    tokens_reset_ms: int = -1

    @property
    def is_plenty(self) -> bool:
        """Is at least half of each limit left?"""
        requests, tokens = self.limit_requests, self.limit_tokens
        return (requests < 0 or 2 * self.remaining_requests >= requests) and (
            tokens < 0 or 2 * self.remaining_tokens >= tokens
        )

    def encoded(self, age_ms: int) -> str:
        """As the routing functions take it. It was said `age_ms` ago."""
        return (
            f"{age_ms} {self.limit_requests} {self.remaining_requests}"
            f" {self.requests_reset_ms} {self.limit_tokens} {self.remaining_tokens}"
            f" {self.tokens_reset_ms}"
        )


def told_by(headers: Sequence[Header], ignored: Callable[[str], None]) -> Told | None:
    """The limits that headers name; None without any that can be used. Calls `ignored`
    with the reason for each that cannot."""
    found = {name: value for name, value in headers if name.startswith(PREFIX)}
    requests = _limit(found, b"requests", headers, ignored)
    tokens = _limit(found, b"tokens", headers, ignored)
    if requests is None and tokens is None:
        return None
    return Told(*(requests or _UNNAMED), *(tokens or _UNNAMED))


_UNNAMED = (-1, -1, -1)


def _limit(
    found: dict[bytes, bytes],
    kind: bytes,
    headers: Sequence[Header],
    ignored: Callable[[str], None],
) -> tuple[int, int, int] | None:
    """Limit, remaining, and milliseconds to the reset."""
    names = [PREFIX + part + kind for part in (b"limit-", b"remaining-", b"reset-")]
    given = [found[name].strip() for name in names if name in found]
    if not given:
        return None
    if len(given) < len(names):
        reason: str | None = INCOMPLETE
    elif any(value.startswith(b"-") for value in given):
        reason = NEGATIVE
    elif not all(value.isdigit() and int(value[:20]) <= MOST for value in given[:2]):
        reason = ODD_NUMBER
    else:
        reset_ms = time_to_reset_ms(given[2], headers)
        reason = _odd_reset(reset_ms) or (INCOMPLETE if not int(given[0]) else None)
        if reason is None and reset_ms is not None:
            limit = int(given[0])
            remaining = min(int(given[1]), limit)
            return limit, remaining, int(min(reset_ms, LONGEST_MS))
    ignored(reason or ODD_UNIT)
    return None


def _odd_reset(reset_ms: float | None) -> str | None:
    if reset_ms is None:
        return ODD_UNIT
    return TOO_FAR if reset_ms > ABSURD_MS else None


def time_to_reset_ms(text: bytes, headers: Sequence[Header]) -> float | None:
    """The duration in an `x-ratelimit-reset-*` among `headers`, in milliseconds. A
    number without a unit is one only in answers of Azure: seconds."""
    if text.isdigit() and len(text) <= 12 and find(headers, _OF_AZURE) is not None:
        return int(text) * 1000.0
    return duration_ms(text)


def duration_ms(text: bytes) -> float | None:
    """`20ms`, `1s`, `6m0s`, `1d2h` in milliseconds; None for another form."""
    if len(text) > 64 or not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _UNIT_MS[unit] for number, unit in _PART.findall(text))


def is_of_account(message: str | None) -> bool:
    """Does the text of a 429 name the limit of an organization, a project or an Azure
    resource? "Rate limit reached for gpt-5.5 in organization org-x on tokens per min
    (TPM): ...", "... have exceeded the token rate limit for your current AIServices S0
    pricing tier. ..."."""
    return message is not None and _OF_ACCOUNT.search(message[:1_000]) is not None
