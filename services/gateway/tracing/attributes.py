"""Names and attributes of spans: OpenTelemetry's conventions for HTTP, which are
stable, and for generative AI, which are not. Attributes `responses_proxy.*` are columns
of the table `requests`. Pure.

No body, header, key, session id or message of an upstream is among them."""

from typing import NamedTuple

from libs.common.contracts.events import Outcome
from services.gateway.auth.endpoints import route_of
from services.gateway.errors import Problem
from services.gateway.ledger.record import Record
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.tracing.request_trace import AttemptTrace

CHARS = 200  # of what a client or an upstream chose
Value = str | int | float

_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "QUERY"}
)
_FAILED = (Outcome.FAILED.value, Outcome.INTERRUPTED.value)
# By path: the operation of `gen_ai.operation.name`, and the API of `openai.api.type`.
_OPERATIONS = {
    b"/responses": ("chat", "responses"),
    b"/responses/compact": ("chat", "responses"),
    b"/chat/completions": ("chat", "chat_completions"),
    b"/completions": ("text_completion", None),
    b"/embeddings": ("embeddings", None),
}


class Described(NamedTuple):
    """A span's name and attributes, and whether its status is an error."""

    name: str
    attributes: dict[str, Value]
    failed: bool


def of_request(life: Lifecycle) -> Described:
    """The span of a request, as its client sees it."""
    record = life.record
    status = record.status_code
    failed = record.outcome in _FAILED and (status is None or status >= 500)
    found = _kept(
        {
            **_http(record, life.path),
            "url.path": record.path[:CHARS],
            "url.scheme": "http",
            "http.response.status_code": status,
            "error.type": _error_type(record) if record.outcome in _FAILED else None,
            "responses_proxy.id": record.id,
            "responses_proxy.gateway_id": record.gateway_id,
            "responses_proxy.outcome": record.outcome,
            "responses_proxy.attempts": record.attempts,
            "responses_proxy.transport": record.transport,
            "responses_proxy.pool_id": record.pool_id,
            "responses_proxy.proxy_key_id": record.proxy_key_id,
            "responses_proxy.team_id": record.team_id,
            "responses_proxy.overhead_ms": record.overhead_ms,
            "responses_proxy.first_token_ms": record.first_token_ms,
        }
    )
    return Described(_name(record, life.path), found, failed)


def of_upgrade(life: Lifecycle) -> Described:
    """The span of an upgrade that opened a WebSocket. Its turns have spans of their
    own."""
    record = life.record
    found = _kept(
        {
            "http.request.method": "GET",
            "http.route": "/v1/responses",
            "http.response.status_code": 101,
            "url.path": record.path[:CHARS],
            "url.scheme": "http",
            "responses_proxy.id": record.id,
            "responses_proxy.gateway_id": record.gateway_id,
            "responses_proxy.attempts": record.attempts,
        }
    )
    return Described("GET /v1/responses", found, failed=False)


def of_attempt(life: Lifecycle, attempt: AttemptTrace, *, last: bool) -> Described:
    """The span of an attempt. `last`: the answer that the client got is this one's."""
    record = life.record
    model = record.upstream_model if life.alias is not None else record.model
    operation, api = None, None
    # An upgrade asks for nothing yet.
    if record.method == "POST" or (record.method == "WS" and model):
        operation, api = _OPERATIONS.get(life.path, (None, None))
    found: dict[str, Value | None] = {
        "server.address": attempt.address,
        "server.port": attempt.port,
        "responses_proxy.resource_id": attempt.resource_id,
        "responses_proxy.attempt": attempt.number,
        "responses_proxy.reason": attempt.reason,
        **_http(record, life.path),
    }
    if operation is not None:
        found |= {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": attempt.provider,
            "gen_ai.request.model": model and model[:CHARS],
            "openai.api.type": api,
        }
    failed = bool(attempt.cause)
    if failed:
        found["error.type"] = attempt.cause
        found["http.response.status_code"] = attempt.status
    elif last:
        failed = record.outcome in _FAILED
        found |= _answer(record, of_model=operation is not None)
        if life.problem is not None:  # the upstream broke off, or the gateway stops
            found["http.response.status_code"] = None
    name = _name(record, life.path)
    if operation is not None:
        name = f"{operation} {model[:CHARS]}" if model else operation
    return Described(name, _kept(found), failed)


def _answer(record: Record, *, of_model: bool) -> dict[str, Value | None]:
    """What the answer of an attempt says."""
    found: dict[str, Value | None] = {
        "http.response.status_code": record.status_code,
        "error.type": _error_type(record) if record.outcome in _FAILED else None,
    }
    if of_model:
        found |= {
            "gen_ai.response.id": _short(record.response_id),
            "gen_ai.response.model": _short(record.upstream_model),
            "gen_ai.usage.input_tokens": record.input_tokens,
            "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
            "gen_ai.usage.output_tokens": record.output_tokens,
            "gen_ai.usage.reasoning.output_tokens": record.reasoning_tokens,
            "openai.response.service_tier": _short(record.service_tier),
        }
    return found


def _http(record: Record, path: bytes) -> dict[str, Value | None]:
    """The method and the endpoint. A turn of a WebSocket is no HTTP request."""
    if record.method == "WS":
        return {"network.protocol.name": "websocket"}
    known = record.method in _METHODS
    return {
        "http.request.method": record.method if known else "_OTHER",
        "http.route": _route(record.method, path) or None,
    }


def _name(record: Record, path: bytes) -> str:
    method = record.method
    if method == "WS":
        return "WS /v1/responses"
    route = _route(method, path)
    return f"{method if method in _METHODS else 'HTTP'} {route}".rstrip()


def _route(method: str, path: bytes) -> str:
    """The endpoint without its ids; empty for an unknown one. Names of spans have to
    be few."""
    try:
        return f"/v1{route_of(method, path).rule.template}"
    except Problem:
        return ""


def _error_type(record: Record) -> str:
    return _short(record.error_code) or str(record.status_code or record.outcome)


def _short(text: str | None) -> str | None:
    return text and text[:CHARS]


def _kept(found: dict[str, Value | None]) -> dict[str, Value]:
    return {name: value for name, value in found.items() if value not in (None, "")}
