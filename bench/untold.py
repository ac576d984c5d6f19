"""A gateway that keeps no books, to tell what books cost: `python -m bench.untold`.
It routes, forwards and learns ids as ever. It encodes no event and journals nothing;
with PROXY_MAX_CAPTURE_BYTES=0 it captures nothing. Redis still writes down what it
decides, in its own time."""

from libs.common import routing
from services.gateway import outcomes
from services.gateway.__main__ import run
from services.gateway.journal import Journal

NOTHING = b"{}"  # an event all the same, for it ends the lease


def _nothing(journal: Journal, id_: str, content: bytes) -> int:  # noqa: ARG001
    return 0


def forget() -> None:
    """Replace what writes."""
    outcomes._encode = lambda record: NOTHING  # noqa: ARG005
    routing._decision_head = lambda ask, now: NOTHING[:-1]  # noqa: ARG005
    for name in ("accepted", "ended", "decided"):
        setattr(Journal, name, _nothing)


if __name__ == "__main__":
    forget()
    run()
