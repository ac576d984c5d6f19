"""Verdicts: what a response or a health check says about its resource. Pure."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Literal

import msgspec

from libs.common.headers import Header, find

_NO_MONEY = frozenset({"insufficient_quota", "credit_balance_exhausted"})
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
LONGEST_COOLDOWN_MS = 3_600_000

VerdictKind = Literal["ok", "fault", "limited", "exhausted", "refused", "neutral"]


class Verdict(msgspec.Struct, frozen=True, gc=False):
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
    cause: str = ""
    cooldown_ms: int | None = None
    latency_ms: float | None = None


def judge(
    status: int,
    headers: Sequence[Header],
    error_code: str | None,
    now: Callable[[], datetime],
) -> Verdict:
    """The verdict of a response. Client errors are neutral."""
    if status == 429 and error_code in _NO_MONEY:
        return Verdict(kind="exhausted", cause=f"429 {error_code}")
    if _refuses_key(status, error_code):
        return Verdict(kind="refused", cause=f"{status} {error_code or 'refused'}")
    if status == 429:
        return Verdict(
            kind="limited",
            cause="429 rate limited",
            cooldown_ms=cooldown_ms(headers, now),
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


def of_failed_response(error_code: str | None) -> Verdict:
    """The verdict of `response.failed` or `error` in a stream, whose status was 200."""
    if error_code == "rate_limit_exceeded":
        return Verdict(kind="limited", cause="429 rate limited in a stream")
    if error_code == "server_error":
        return Verdict(kind="fault", cause="server_error in a stream")
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
    value = find(headers, b"x-ratelimit-reset-" + kind) or b""
    parts = _DURATION.findall(value.decode("latin-1"))
    if not parts:
        return None
    return sum(float(amount) * _UNIT_MS[unit] for amount, unit in parts)


def _number(value: bytes | None) -> float | None:
    try:
        number = float(value) if value is not None else None
    except ValueError:
        return None
    return number if number is not None and 0 <= number < 1e12 else None
