"""When the steps of a request were, as far as its row and its decisions tell. Pure."""

from datetime import datetime

from libs.common.contracts.events import Row

STEPS = ("received", "acquired", "sent", "first_byte", "first_token", "done")


def timeline(request: Row, decisions: list[Row]) -> dict[str, float | None]:
    """Milliseconds after the request was received; null if not known. Of several
    attempts the last one's: what came before is the time until it was acquired.

    Decisions have the time of Redis, which may differ from the gateway's, so no step is
    before the one before it or after the end."""
    done, token = request["latency_ms"], request["first_token_ms"]
    upstream, overhead = request["upstream_ms"], request["overhead_ms"]
    last = decisions[-1] if decisions else None
    acquired = None if last is None else _after(request, last)
    sent = None
    if overhead is not None and request["attempts"] <= 1:
        sent = overhead + sum(row["waited_ms"] or 0 for row in decisions)
    elif upstream is not None:
        sent = acquired  # at once
    if sent is not None and acquired is not None:
        acquired = min(acquired, sent)
    first_byte = None if sent is None or upstream is None else sent + upstream
    steps = 0.0, acquired, sent, first_byte, token, done
    return {
        f"{name}_ms": at for name, at in zip(STEPS, _in_order(steps, done), strict=True)
    }


def _after(request: Row, decision: Row) -> float:
    began, decided = (
        datetime.fromisoformat(row["created_at"]) for row in (request, decision)
    )
    return (decided - began).total_seconds() * 1000


def _in_order(
    steps: tuple[float | None, ...], done: float | None
) -> list[float | None]:
    ordered: list[float | None] = []
    before = 0.0
    for at in steps:
        if at is not None:
            at = before = max(before, at if done is None else min(at, done))  # noqa: PLW2901
            at = round(at, 3)  # noqa: PLW2901
        ordered.append(at)
    return ordered
