"""What a check's answer or error says of a resource. Pure."""

from datetime import UTC, datetime

import httpx

from libs.common.contracts import Verdict
from libs.common.verdicts import judge


def of_answer(answer: httpx.Response, latency_ms: float) -> Verdict:
    """A check asks for nothing a working key could be denied, so other client
    errors say nothing of the key either."""
    headers = [(name.lower(), value) for name, value in answer.headers.raw]
    verdict = judge(answer.status_code, headers, _error_code(answer), _now)
    return verdict.model_copy(update={"latency_ms": round(latency_ms, 3)})


def of_error(error: httpx.HTTPError) -> Verdict:
    """No answer: a fault, in words without addresses or keys."""
    if isinstance(error, httpx.TimeoutException):
        return Verdict(kind="fault", cause="check timed out")
    if isinstance(error, httpx.ConnectError):
        return Verdict(kind="fault", cause="cannot connect")
    return Verdict(kind="fault", cause=f"check failed: {type(error).__name__}")


def _error_code(answer: httpx.Response) -> str | None:
    try:
        code = answer.json()["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return None
    return code if isinstance(code, str) else None


def _now() -> datetime:
    return datetime.now(UTC)
