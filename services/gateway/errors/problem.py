"""An error of the gateway's own, in OpenAI's envelope."""

from collections.abc import Sequence

import msgspec

from libs.common.errors import ProxyError

Header = tuple[bytes, bytes]


class Problem(ProxyError):
    """An error that the gateway answers itself. Its message says what happened and
    what the client can do."""

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        *,
        param: str | None = None,
        headers: Sequence[Header] = (),
        kind: str | None = None,
    ) -> None:
        """`kind`: the error's type, if not that of the status."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.kind = kind or _error_type(status)
        self.message = message
        self.param = param
        self.headers = tuple(headers)
        # The ledger's error code, where it differs from the client's.
        self.ledger_code = code or ""

    def body(self) -> bytes:
        """The JSON envelope. SDKs expect all four members."""
        return msgspec.json.encode(
            {
                "error": {
                    "message": self.message,
                    "type": self.kind,
                    "param": self.param,
                    "code": self.code,
                }
            }
        )


def error_frame(problem: Problem, stream_id: str | None) -> str:
    """The problem as a WebSocket message. Codex waits forever after a frame without
    `status`, and fails at a 429 without `retry-after` (docs/upstream-api.md)."""
    frame = {"type": "error", "status": problem.status}
    frame |= msgspec.json.decode(problem.body())
    if problem.headers:
        frame["headers"] = {n.decode(): v.decode() for n, v in problem.headers}
    if stream_id is not None:
        frame["stream_id"] = stream_id
    return msgspec.json.encode(frame).decode()


def retry_after(milliseconds: int) -> Header:
    """Whole seconds, at least 1: Codex understands no other form
    (docs/upstream-api.md)."""
    return b"retry-after", str(max(1, -(-milliseconds // 1000))).encode()


def _error_type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    if status >= 500:
        return "server_error"
    return "invalid_request_error"
