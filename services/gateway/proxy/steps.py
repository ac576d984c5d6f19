"""The phases of a request, and the steps between them. Pure."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from libs.common.headers import Header


class Phase(IntEnum):
    """How far a request has come."""

    ARRIVED = 0  # not in the ledger: a refusal leaves no row
    ADMITTED = 1  # in the ledger; holds no lease, or that of a failed attempt
    ACQUIRED = 2  # holds a lease on a resource
    SENT = 3  # the upstream has it
    RELAYED = 4  # the answer is known; its last bytes may wait for the settlement
    SETTLED = 5  # the lease is released, the request event is written


# A name of the module is found sooner than one of an enum.
ARRIVED: Final[Phase] = Phase.ARRIVED
ADMITTED: Final[Phase] = Phase.ADMITTED
ACQUIRED: Final[Phase] = Phase.ACQUIRED
SENT: Final[Phase] = Phase.SENT
RELAYED: Final[Phase] = Phase.RELAYED
SETTLED: Final[Phase] = Phase.SETTLED


class Next(IntEnum):
    """What the caller of a `Lifecycle` does next."""

    ACQUIRE = 0  # try another resource
    RELAY = 1  # relay the answer
    READ = 2  # read the error whole, then call `rejected`
    ANSWER = 3  # answer with `problem`, or else with `failure`
    REWRITE = 4  # rewrite the request for another account, or else answer
    DONE = 5  # nothing


ACQUIRE: Final[Next] = Next.ACQUIRE
RELAY: Final[Next] = Next.RELAY
READ: Final[Next] = Next.READ
ANSWER: Final[Next] = Next.ANSWER
REWRITE: Final[Next] = Next.REWRITE
DONE: Final[Next] = Next.DONE


@dataclass(slots=True)
class Failure:
    """An upstream's error, whole: the client gets the last one when no other resource
    can serve the request, or one before it (`retry.is_withheld`)."""

    status: int
    headers: list[Header]
    body: bytes
    cause: str = ""  # as a `Cause`
