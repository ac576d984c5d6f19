"""One log line for each event of a request that an operator wants to find: refusals,
failovers, failures, interruptions. Optionally one for each request (access log).

Lines of the same action and cause are limited (`LogLimit`). None has bodies, messages
of upstreams, header values, keys or session ids."""

import contextlib
import sys
from datetime import UTC, datetime
from typing import Protocol

import msgspec
import structlog

from libs.common.runtime.log_limit import LogLimit, more
from services.gateway import metrics

log = structlog.get_logger()

CHARS = 200  # of what a client or an upstream chose

interruptions = metrics.Counter(
    "proxy_interruptions_total",
    "Answers that ended early after they had begun, by cause.",
    "cause",
    ("upstream_broke_off", "upstream_timeout", "client_stalled", "gateway_restarts"),
)
_CAUSES = {"broke off": "upstream_broke_off", "timeout": "upstream_timeout"}
_KEYS = frozenset({401, 403, 429})
_limit = LogLimit()


class Told(Protocol):
    """What is logged of a request: fields of `ledger.record.Record`."""

    id: str
    method: str
    path: str
    created_at_ms: int
    resource_id: str | None
    pool_id: str | None
    proxy_key_id: str | None
    team_id: str | None
    model: str | None
    transport: str
    status_code: int | None
    outcome: str | None
    error_code: str | None
    attempts: int
    latency_ms: float | None
    upstream_ms: float | None
    first_token_ms: float | None
    overhead_ms: float | None
    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    request_bytes: int
    response_bytes: int
    response_id: str | None


def refused(code: str, status: int, request_id: str | None = None) -> None:
    """A request was refused before it was accepted: it has no row."""
    metrics.count_refused(code)
    left_out = _limit.take(f"refused {code}")
    if left_out is not None:
        log.warning(
            "request refused",
            action="request_refused",
            request=request_id,
            code=code,
            status=status,
            **more(left_out),
        )


def failed_over(record: Told, before: str, cause: str) -> None:
    """An attempt follows one that failed, on the resource `before`."""
    metrics.failovers.inc(cause)
    left_out = _limit.take(f"failover {cause} {before}")
    if left_out is not None:
        log.warning(
            "request tries another resource",
            action="failover",
            request=record.id,
            resource=before,
            next=record.resource_id,
            attempt=record.attempts,
            cause=cause,
            **more(left_out),
        )


def ended(record: Told, verdict_cause: str, refusal: str | None) -> None:
    """A request ended otherwise than completed. `verdict_cause`: of the verdict on its
    resource. `refusal`: the code of the gateway's own error, if it answered with one.
    """
    if record.outcome == "cancelled":
        return
    cause = _interrupted_by(record, verdict_cause)
    if cause is not None:
        interruptions.inc(cause)
        _say("request interrupted", "request_interrupted", record, cause)
    elif refusal is not None and not record.attempts:
        _say("request refused", "request_refused", record, refusal)
    else:
        _say("request failed", "request_failed", record, refusal or record.status_code)


def _interrupted_by(record: Told, verdict_cause: str) -> str | None:
    """Why an answer ended early; None if it did not."""
    if record.outcome == "interrupted":
        return record.error_code or "gateway_restarts"
    if record.error_code == "client_stalled":
        return record.error_code
    if record.status_code is None or record.status_code >= 400:
        return None
    return _CAUSES.get(verdict_cause)


def _say(message: str, action: str, record: Told, cause: object) -> None:
    left_out = _limit.take(f"{action} {cause}")
    if left_out is None:
        return
    status, code = record.status_code, record.error_code
    # An upstream's 400 or 404 is usually the client's fault.
    clients = action == "request_failed" and status is not None and status < 500
    say = log.info if clients and status not in _KEYS else log.warning
    say(
        message,
        action=action,
        request=record.id,
        resource=record.resource_id,
        outcome=record.outcome,
        status=status,
        cause=cause,
        code=code and code[:CHARS],
        attempts=record.attempts,
        key=record.proxy_key_id,
        **more(left_out),
    )


# The access log ---------------------------------------------------------------------


class _Line(msgspec.Struct, omit_defaults=True):
    """A line of the access log."""

    timestamp: str
    action: str
    service: str
    level: str
    message: str
    request: str
    method: str
    path: str
    status: int | None
    outcome: str | None
    code: str | None = None
    resource: str | None = None
    pool: str | None = None
    key: str | None = None
    team: str | None = None
    model: str | None = None
    transport: str | None = None
    attempts: int = 0
    latency_ms: float | None = None
    upstream_ms: float | None = None
    first_token_ms: float | None = None
    overhead_ms: float | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    response_id: str | None = None


_encode = msgspec.json.Encoder().encode


def access_line(record: Told) -> bytes:
    """The line of a request that ended."""
    at = datetime.fromtimestamp(record.created_at_ms / 1000, UTC)
    code, model, response_id = record.error_code, record.model, record.response_id
    return _encode(
        _Line(
            at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "access",
            "gateway",
            "info",
            "request ended",
            record.id,
            record.method[:CHARS],
            record.path[:CHARS],
            record.status_code,
            record.outcome,
            code and code[:CHARS],
            record.resource_id,
            record.pool_id and record.pool_id[:CHARS],
            record.proxy_key_id,
            record.team_id,
            model and model[:CHARS],
            record.transport,
            record.attempts,
            record.latency_ms,
            record.upstream_ms,
            record.first_token_ms,
            record.overhead_ms,
            record.input_tokens,
            record.cached_tokens,
            record.output_tokens,
            record.request_bytes,
            record.response_bytes,
            response_id and response_id[:CHARS],
        )
    )


def write_access(record: Told) -> None:
    """Write it to standard error, whose reader may be gone."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(access_line(record).decode() + "\n")
