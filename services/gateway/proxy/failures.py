"""Errors of upstreams: read whole, and passed on."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from libs.common.headers import Header, find
from libs.common.upstream_answers.verdicts import judge
from services.gateway import errors
from services.gateway.content.key_masking import without_key
from services.gateway.content.response_facts import read_answer
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.proxy.steps import Failure, Next
from services.gateway.routing.target import Target
from services.gateway.upstream.client import Answer, Broken, UpstreamError

READ_S = 5.0  # for the body
LARGEST = 1_048_576  # bytes of a body that are passed on


async def read_failure(
    life: Lifecycle, answer: Answer, target: Target, limit_s: float
) -> Next:
    """Read an error whole, and let `life` decide. `limit_s`: how long a request may
    take."""
    try:
        body = await read_whole(answer)
    except UpstreamError as error:
        return life.failed(error, limit_s)
    finally:
        answer.close()
    headers, body, plain = without_key(answer.status, answer.headers, body, target.sent)
    failure = Failure(answer.status, headers, body)
    return life.rejected(failure, read_answer(plain), utc_now)


async def read_whole(answer: Answer) -> bytes:
    """The body of an upstream's error, up to LARGEST bytes. Raises `Broken`
    when it does not come."""
    body = bytearray()
    try:
        async with asyncio.timeout(READ_S):
            while len(body) < LARGEST and (chunk := await answer.next()):
                body += chunk
    except TimeoutError:
        raise Broken("its error never ended") from None
    return bytes(body)


def with_whole_retry_after(headers: Sequence[Header], pause_ms: int) -> list[Header]:
    """Every 429 leaves with an integer Retry-After: Codex fails without one. Where the
    upstream names no time, it is the resource's cooldown."""
    value = find(headers, b"retry-after")
    if value is not None and value.isdigit() and int(value) > 0:
        return list(headers)
    asked_ms = judge(429, headers, None, utc_now).cooldown_ms
    kept = [header for header in headers if header[0] != b"retry-after"]
    return [*kept, errors.retry_after(pause_ms if asked_ms is None else asked_ms)]


def utc_now() -> datetime:
    return datetime.now(UTC)
