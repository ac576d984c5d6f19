"""The headers of answers, including those that reveal the upstream account."""

import time
from collections import Counter

from libs.simulator.state.accounts import Account
from libs.simulator.state.ids import random_hex

_REQUESTS_PER_MINUTE = 10_000
_TOKENS_PER_MINUTE = 2_000_000
_TOKENS_PER_REQUEST = 100


class RateWindow:
    """Counts each account's requests in the current minute."""

    def __init__(self) -> None:
        self._minute = 0
        self._used: Counter[str] = Counter()

    def count(self, account: Account, now: float) -> int:
        minute = int(now // 60)
        if minute != self._minute:
            self._minute, self._used = minute, Counter()
        self._used[account.name] += 1
        return self._used[account.name]


def answer_headers(
    account: Account | None, used: int, started: float, *, named: bool = True
) -> dict[str, str]:
    """Headers for one answer. `started` is monotonic time; `used` counts the account's
    requests of this minute; `named`: include the account's names."""
    headers = {
        "x-request-id": f"req_{random_hex(32)}",
        "openai-processing-ms": str(int((time.monotonic() - started) * 1000)),
        "openai-version": "2020-10-01",
        "x-simulated": "true",
        "set-cookie": f"__cf_bm={random_hex(40)}; path=/; domain=.api.openai.com; "
        "HttpOnly; Secure; SameSite=None",
        "cf-ray": f"{random_hex(16)}-SIM",
        "cf-cache-status": "DYNAMIC",
        "strict-transport-security": "max-age=31536000; includeSubDomains; preload",
        "alt-svc": 'h3=":443"; ma=86400',
        "server": "cloudflare",
    }
    if account is None:
        return headers
    tokens = _TOKENS_PER_REQUEST * used
    if named:
        headers["openai-organization"] = account.name
        headers["openai-project"] = account.project
    return headers | {
        "x-ratelimit-limit-requests": str(_REQUESTS_PER_MINUTE),
        "x-ratelimit-limit-tokens": str(_TOKENS_PER_MINUTE),
        "x-ratelimit-remaining-requests": str(max(0, _REQUESTS_PER_MINUTE - used)),
        "x-ratelimit-remaining-tokens": str(max(0, _TOKENS_PER_MINUTE - tokens)),
        "x-ratelimit-reset-requests": "6ms",
        "x-ratelimit-reset-tokens": "0s",
    }
