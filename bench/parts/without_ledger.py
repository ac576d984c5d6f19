"""A gateway without a ledger, to measure what the ledger costs:
`python -m bench.parts.without_ledger`.

It routes, forwards and learns ids, but encodes no events and writes no journal; with
PROXY_MAX_CAPTURE_BYTES=0 it captures nothing. Redis still records its decisions."""

from libs.common.routing import functions
from services.gateway.ledger import lease_head
from services.gateway.ledger.journal.journal import Journal
from services.gateway.process import run

NOTHING = b"{}"  # still an event, because the event ends the lease


def _nothing(journal: Journal, id_: str, content: bytes) -> int:  # noqa: ARG001
    return 0


def forget() -> None:
    """Replace the functions that write."""
    setattr(lease_head, "_encode", lambda record: NOTHING)  # noqa: ARG005, B010
    setattr(functions, "decision_head", lambda ask, now: NOTHING[:-1])  # noqa: ARG005, B010
    for name in ("accepted", "ended", "decided"):
        setattr(Journal, name, _nothing)


if __name__ == "__main__":
    forget()
    run()
