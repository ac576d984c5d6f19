"""What is called for a request that ended, and nothing else:
`python -m bench.parts.recording WHAT COUNT`, for `bench.observability`."""

import sys
from collections.abc import Callable

from services.gateway import event_log
from services.gateway.ledger.record import Record
from services.gateway.request_metrics import request_ended


def record(*, streamed: bool) -> Record:
    """A request as it is when it is settled."""
    made = Record(
        "019ab0de-7c1e-7d31-a1c3-2a8c4f5b6d7e", 1_764_000_000_000, "POST",
        "/v1/responses", "bench-1", model="gpt-5.5", resource_id="openai-1",
        account_id="acct-a", outcome="completed", status_code=200, attempts=1,
        latency_ms=12.5, upstream_ms=10.0, overhead_ms=0.4, input_tokens=10,
        output_tokens=20,
    )  # fmt: skip
    if streamed:
        made.transport, made.first_token_ms = "sse", 5.0
    return made


def main() -> int:
    what, count = sys.argv[1], int(sys.argv[2])
    ended = record(streamed=what == "stream")
    work: Callable[[], None] = lambda: request_ended(ended, "ok")  # noqa: E731
    if what == "access log":
        work = lambda: event_log.write_access(ended)  # noqa: E731
    for _ in range(count):
        work()
    return 0


if __name__ == "__main__":
    sys.exit(main())
