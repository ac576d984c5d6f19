"""Limits on the tokens of an account and model. Without one, nothing is limited."""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from libs.simulator.api.errors import ApiError
from libs.simulator.wire import Json

_BYTES_PER_TOKEN = 4
_MOST_NOTED = 10_000


class Rate(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A limit as the control API accepts it. `level`: tokens that are left now. They
    come back evenly, all within a minute, unless `refill_per_s` says otherwise."""

    account: str
    model: str
    tokens: int
    level: int | None = None
    refill_per_s: float | None = None
    # How the message of a 429 names what is limited; none: it does not.
    scope: str | None = "organization"


class Asked(NamedTuple):
    """A request for a limited model. `at`: seconds of the clock."""

    at: float
    served: bool


@dataclass
class _Bucket:
    rate: Rate
    level: float
    at: float
    wanted: float = 0  # tokens of the last refused request
    asked: deque[Asked] = field(default_factory=lambda: deque(maxlen=_MOST_NOTED))

    @property
    def per_s(self) -> float:
        per_s = self.rate.refill_per_s
        return self.rate.tokens / 60 if per_s is None else per_s

    def note(self, *, served: bool) -> None:
        self.asked.append(Asked(self.at, served))

    def fill(self, now: float) -> None:
        refilled = self.level + (now - self.at) * self.per_s
        self.level, self.at = min(refilled, self.rate.tokens), now

    def wait_s(self, tokens: float) -> float:
        missing = max(tokens - self.level, 0)
        return missing / self.per_s if self.per_s else 60.0


class Rates:
    """The limits in force."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def limit(self, rate: Rate) -> None:
        level = rate.tokens if rate.level is None else rate.level
        bucket = _Bucket(rate, level, self._clock())
        self._buckets[rate.account, rate.model] = bucket

    def asked(self, account: str, model: str) -> list[Asked]:
        """The requests for a limited model, oldest first."""
        bucket = self._buckets.get((account, model))
        return list(bucket.asked) if bucket else []

    def clear(self) -> None:
        self._buckets.clear()

    def shown(self) -> list[Json]:
        return [
            {**msgspec.to_builtins(bucket.rate), "level": bucket.level}
            for bucket in self._buckets.values()
        ]

    def take(self, account: str, model: str | None, body: Json, size: int) -> None:
        """Count a request; raises the error of one that is over the limit."""
        bucket = self._buckets.get((account, model or ""))
        if bucket is None:
            return
        bucket.fill(self._clock())
        longest = body.get("max_output_tokens")
        tokens = size // _BYTES_PER_TOKEN
        tokens += longest if isinstance(longest, int) else 0
        bucket.note(served=tokens <= bucket.level)
        if tokens > bucket.level:
            bucket.wanted = tokens
            raise _limited(bucket, tokens)
        bucket.level -= tokens

    def headers(self, account: str, model: str | None, status: int) -> dict[str, str]:
        """What answers say of the limit."""
        bucket = self._buckets.get((account, model or ""))
        if bucket is None:
            return {}
        bucket.fill(self._clock())
        reset_ms = round(bucket.wait_s(bucket.rate.tokens) * 1000)
        told = {
            "x-ratelimit-limit-tokens": str(bucket.rate.tokens),
            "x-ratelimit-remaining-tokens": str(int(bucket.level)),
            "x-ratelimit-reset-tokens": f"{reset_ms}ms",
        }
        if status == 429:
            told["retry-after"] = str(max(math.ceil(bucket.wait_s(bucket.wanted)), 1))
        return told


def _limited(bucket: _Bucket, tokens: int) -> ApiError:
    rate, wait_s = bucket.rate, bucket.wait_s(tokens)
    where = f" in {rate.scope} {rate.account}" if rate.scope else ""
    return ApiError(
        429,
        f"Rate limit reached for {rate.model}{where} on tokens per min (TPM): Limit "
        f"{rate.tokens}, Used {int(rate.tokens - bucket.level)}, Requested {tokens}. "
        f"Please try again in {wait_s:.3g}s. Visit "
        "https://platform.openai.com/account/rate-limits to learn more.",
        kind="tokens",
        code="rate_limit_exceeded",
    )
