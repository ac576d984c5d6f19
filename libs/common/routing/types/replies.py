"""What the routing functions reply to calls that no request makes. Pure."""

from dataclasses import dataclass
from typing import Any

from libs.common.contracts.events import GatewayEvent


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a request would go. `status`: ok or the name of the refusal."""

    status: str
    resource_id: str | None
    reason: str
    trial: bool
    wait_ms: int
    candidates: list[dict[str, Any]]


EntryId = tuple[int, int]  # of the telemetry stream: "1700000000000-0"


@dataclass(frozen=True, slots=True)
class StreamEnds:
    """How far the telemetry stream is. Ingest deletes entries that it stored."""

    first_id: EntryId | None = None  # the oldest entry; None: the stream is empty
    last_id: EntryId = (0, 0)  # the last id that was ever assigned
    added: int = 0  # entries ever written

    def stored(self, entry_id: EntryId) -> bool:
        """Whether this entry, and all older ones, are stored."""
        return self.first_id is None or self.first_id > entry_id


@dataclass(frozen=True, slots=True)
class Beat:
    """The reply to a heartbeat. `known`: Redis had the gateway; if not, it was reaped
    or Redis was emptied. `born`: when Redis got its first catalogue; a changed value
    means that everything this gateway wrote before is lost."""

    version: str | None
    known: bool
    born: str = ""
    ends: StreamEnds = StreamEnds()


@dataclass(frozen=True, slots=True)
class Reported:
    """A gateway's ledger report in Redis, and its age."""

    at_ms: int
    age_ms: int
    books: GatewayEvent


@dataclass(frozen=True, slots=True)
class Queue:
    """Requests that wait for the resources of a pool (None: of no pool in particular),
    or of an account. `shares`: proxy keys or sessions that they belong to."""

    pool_id: str | None
    account_id: str | None
    requests: int
    shares: int
