"""A gateway that keeps no books, to tell what books cost: `python -m bench.untold`.
It routes, forwards and learns ids as ever. It encodes no event and journals nothing;
with PROXY_MAX_CAPTURE_BYTES=0 it captures nothing. Redis still writes down what it
decides, in its own time."""

from libs.common import routing
from services.gateway import outcomes
from services.gateway.__main__ import run
from services.gateway.journal import Journal

NOTHING = b"{}"  # an event all the same, for it ends the lease


def forget() -> None:
    """Replace what writes."""
    outcomes._encode = lambda record: NOTHING
    routing._decision_head = lambda ask, now: NOTHING[:-1]
    Journal.accepted = lambda self, request_id, head: None  # type: ignore[method-assign]
    Journal.ended = lambda self, request_id, event: 0  # type: ignore[method-assign]
    Journal.decided = lambda self, decision_id, event: 0  # type: ignore[method-assign]


if __name__ == "__main__":
    forget()
    run()
