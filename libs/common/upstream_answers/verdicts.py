"""Verdicts: what a response or a health check says about its resource: that it works,
is limited and cools down, is refused, or failed. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Literal

from libs.common.headers import Header, find
from libs.common.upstream_answers.rate_limits import is_of_account, time_to_reset_ms

# https://help.openai.com/en/articles/6614457
_NO_MONEY = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_usage_limit_exceeded",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
    }
)
# Azure names statuses as codes.
_CODES = {
    "401": "invalid_api_key",
    "429": "rate_limit_exceeded",
    **dict.fromkeys(("500", "502", "503", "504"), "server_error"),
}
_FAULTS = frozenset({"server_error", "server_is_overloaded", "slow_down"})
LONGEST_COOLDOWN_MS = 3_600_000

VerdictKind = Literal["ok", "fault", "limited", "exhausted", "refused", "neutral"]


@dataclass(init=False, slots=True, unsafe_hash=True)  # nothing changes it
class Verdict:
    """What a response or a health check says about a resource. `kind` is one of

    ok: it works.
    fault: 5xx, connect error or timeout; consecutive faults open the circuit.
    limited: 429; starts a cooldown, for the request's model if it has one.
    exhausted: no credit left; unhealthy. A passing check afterwards proves only the
        key, so one trial request follows.
    refused: 401 or 403; unhealthy until a check passes.
    neutral: says nothing about the resource.
    """

    kind: VerdictKind
    cause: str
    cooldown_ms: int | None
    latency_ms: float | None
    of_account: bool  # `limited` is not only this key, but its account

    def __init__(
        self,
        kind: VerdictKind,
        cause: str = "",
        cooldown_ms: int | None = None,
        latency_ms: float | None = None,
        of_account: bool = False,
    ) -> None:
        self.kind, self.cause = kind, cause
        self.cooldown_ms, self.latency_ms = cooldown_ms, latency_ms
        self.of_account = of_account


def judge(
    status: int,
    headers: Sequence[Header],
    error_code: str | None,
    now: Callable[[], datetime],
    message: str | None = None,
) -> Verdict:
    """The verdict of a response. `message`: of its error. Client errors are neutral."""
    if status == 429 and error_code in _NO_MONEY:
        return Verdict(kind="exhausted", cause=f"429 {error_code}")
    if _refuses_key(status, error_code):
        # Azure repeats the status as the code.
        named = error_code if error_code != str(status) else None
        return Verdict(kind="refused", cause=f"{status} {named or 'refused'}")
    if status == 429:
        return Verdict(
            kind="limited",
            cause="429 rate limited",
            cooldown_ms=cooldown_ms(headers, now),
            of_account=is_of_account(message),
        )
    if status >= 500:
        return Verdict(
            kind="fault", cause=f"{status}", cooldown_ms=cooldown_ms(headers, now)
        )
    if status < 400:
        return Verdict(kind="ok")
    return Verdict(kind="neutral")


def _refuses_key(status: int, error_code: str | None) -> bool:
    """A 403 for the requested model is not about the key. Otherwise one client could
    lock every key by asking for a model that none may use."""
    return status == 401 or (status == 403 and error_code != "model_not_found")


def of_failed_response(error_code: str | None, message: str | None = None) -> Verdict:
    """The verdict of `response.failed` or `error` in a stream, whose status was 200."""
    error_code = _CODES.get(error_code or "", error_code)
    if error_code == "rate_limit_exceeded":
        return Verdict(
            kind="limited",
            cause="429 rate limited in a stream",
            of_account=is_of_account(message),
        )
    if error_code in _NO_MONEY:
        return Verdict(kind="exhausted", cause=f"429 {error_code} in a stream")
    if error_code == "invalid_api_key":
        return Verdict(kind="refused", cause="401 invalid_api_key in a stream")
    if error_code in _FAULTS:
        return Verdict(kind="fault", cause=f"{error_code} in a stream")
    return Verdict(kind="neutral")


def cooldown_ms(headers: Sequence[Header], now: Callable[[], datetime]) -> int | None:
    """The cooldown that a response asks for, in milliseconds, from the first of
    retry-after-ms, retry-after and x-ratelimit-reset-*; None without any."""
    asked = _number(find(headers, b"retry-after-ms"))
    if asked is None:
        asked = _seconds_or_date(find(headers, b"retry-after"), now)
    if asked is None:
        resets = (_reset(headers, kind) for kind in (b"requests", b"tokens"))
        asked = max((reset for reset in resets if reset is not None), default=None)
    if asked is None:
        return None
    return int(min(max(asked, 0), LONGEST_COOLDOWN_MS))


def _seconds_or_date(value: bytes | None, now: Callable[[], datetime]) -> float | None:
    seconds = _number(value)
    if seconds is not None:
        return seconds * 1000
    if value is None:
        return None
    try:
        moment = parsedate_to_datetime(value.decode("latin-1"))
        return (moment - now()).total_seconds() * 1000
    except (ValueError, TypeError):
        return None


def _reset(headers: Sequence[Header], kind: bytes) -> float | None:
    """`x-ratelimit-reset-*` (`120ms`, `6m0s`) of a limit with nothing remaining."""
    if find(headers, b"x-ratelimit-remaining-" + kind) != b"0":
        return None
    reset = find(headers, b"x-ratelimit-reset-" + kind) or b""
    return time_to_reset_ms(reset, headers)


def _number(value: bytes | None) -> float | None:
    try:
        number = float(value) if value is not None else None
    except ValueError:
        return None
    return number if number is not None and 0 <= number < 1e12 else None
