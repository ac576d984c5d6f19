"""What a heartbeat says of a gateway's books, and is told of the stream. Pure."""

from dataclasses import dataclass

from libs.common.contracts.events import GatewayEvent

EntryId = tuple[int, int]  # of the telemetry stream, "1700000000000-0"


@dataclass(frozen=True, slots=True)
class StreamEnds:
    """How far the telemetry stream is. What ingest stored is deleted from it."""

    first_id: EntryId | None = None  # the oldest entry there is
    last_id: EntryId = (0, 0)  # the last that was ever written
    added: int = 0  # so many were ever written

    def stored(self, entry_id: EntryId) -> bool:
        """Is nothing of that age, or older, waiting any more?"""
        return self.first_id is None or self.first_id > entry_id


@dataclass(frozen=True, slots=True)
class Beat:
    """What a heartbeat tells. `known`: Redis had heard of this gateway; if not,
    it was reaped, or Redis emptied. `born`: since when Redis has what it has; another
    one than before means that it lost whatever this gateway wrote."""

    version: str | None
    known: bool
    born: str = ""
    ends: StreamEnds = StreamEnds()


@dataclass(frozen=True, slots=True)
class Reported:
    """The books of a gateway as Redis has them, and their age."""

    at_ms: int
    age_ms: int
    books: GatewayEvent
