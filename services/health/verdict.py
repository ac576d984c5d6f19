"""Requests an upstream and derives a verdict from its response or error."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from time import perf_counter

import httpx

from libs.common.headers import Header
from libs.common.providers.http_transport import AddressRefused
from libs.common.providers.key_echoes import SentKey
from libs.common.routing.accounts import account_named
from libs.common.runtime.tls import tls_cause
from libs.common.upstream_answers.verdicts import Verdict, judge


async def ask(
    client: httpx.AsyncClient,
    url: str,
    header: Header,
    sent: SentKey,
    timeout_s: float,
) -> tuple[httpx.Response | None, Verdict]:
    """GET `url` with the key in `header`; returns the answer, if there was one, and its
    verdict."""
    started = perf_counter()
    try:
        # A limit for the whole request: httpx only limits each read.
        async with asyncio.timeout(timeout_s):
            answer = await client.get(url, headers=[header])
    except TimeoutError:
        return None, timed_out()
    except httpx.HTTPError as error:
        return None, of_error(error)
    return answer, of_answer(answer, sent, (perf_counter() - started) * 1000)


def of_answer(answer: httpx.Response, sent: SentKey, latency_ms: float) -> Verdict:
    """Judge a response. Every valid key may send a check, so client errors other than
    401, 403 and 429 do not indicate a bad key; neither do redirects, which are not
    followed."""
    latency = round(latency_ms, 3)
    status = answer.status_code
    if 300 <= status < 400:
        return Verdict(kind="neutral", cause=f"{status} redirect", latency_ms=latency)
    verdict = judge(status, _headers(answer), _error_code(answer, sent), _now)
    cause = verdict.cause
    if verdict.kind == "neutral":
        cause = f"{status}: is PROXY_HEALTH_CHECK_PATH right?"
    return replace(verdict, latency_ms=latency, cause=cause)


def account_of(answer: httpx.Response, sent: SentKey) -> str | None:
    """Return the account in the response headers, unless it contains the key."""
    account = account_named(_headers(answer)) if answer.is_success else None
    return None if account is None or sent.shown_in(account) else account


def timed_out() -> Verdict:
    return Verdict(kind="fault", cause="check timed out")


def of_error(error: httpx.HTTPError) -> Verdict:
    """Judge a missing response: a fault, described without addresses and keys."""
    if isinstance(error, httpx.TimeoutException):
        return timed_out()
    if isinstance(error, AddressRefused):
        return Verdict(kind="fault", cause=str(error))
    if isinstance(error, httpx.ConnectError):
        tls = tls_cause(error)
        cause = f"the TLS handshake failed: {tls}" if tls else "cannot connect"
        return Verdict(kind="fault", cause=cause)
    if isinstance(error, httpx.ProxyError):
        return Verdict(kind="fault", cause="the HTTP proxy rejected the connection")
    return Verdict(kind="fault", cause=f"check failed: {type(error).__name__}")


def _headers(answer: httpx.Response) -> list[Header]:
    return [(name.lower(), value) for name, value in answer.headers.raw]


def _error_code(answer: httpx.Response, sent: SentKey) -> str | None:
    try:
        code = answer.json()["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return None
    return sent.hidden(code) if isinstance(code, str) else None


def _now() -> datetime:
    return datetime.now(UTC)
