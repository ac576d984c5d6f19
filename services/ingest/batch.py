"""Batches of stream entries: what is in one, when it is due, how much to read next.
Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from libs.common.contracts.events import StreamedEvent
from libs.common.store.interface import DeadLetter

IDLE_S = 0.5  # how long an idle read waits; bounds how long a stop goes unnoticed
# With a backlog a batch grows: what a transaction costs is shared by more.
GROWTH = 10
BATCH_BYTES = 8 * 2**20  # whatever it counts, a batch of this size is due
READ_ENTRIES = 500  # by one call to Redis, which does nothing else meanwhile
# The first read of a batch may meet the largest entries there are.
FIRST_READ_ENTRIES = 64

Fields = Mapping[bytes, bytes]
Decode = Callable[[str, Fields], StreamedEvent | DeadLetter]
Parts = Callable[[Fields], Sequence[Fields]]


class Entry(Protocol):
    """A stream entry: the id that Redis gave it, and its fields."""

    @property
    def id(self) -> str: ...

    @property
    def fields(self) -> Fields: ...


@dataclass(frozen=True, slots=True)
class Size:
    """What a batch has so far. `more`: the last read got all it asked for, so
    there is probably a backlog."""

    entries: int = 0
    bytes: int = 0
    more: bool = False


@dataclass(frozen=True, slots=True)
class BatchRule:
    """A batch is written when it is this big or this old."""

    size: int
    max_age_s: float

    def due(self, so_far: Size, age_s: float) -> bool:
        if so_far.entries == 0:
            return False
        if so_far.bytes >= BATCH_BYTES or age_s >= self.max_age_s:
            return True
        return so_far.entries >= (self._largest if so_far.more else self.size)

    def room(self, so_far: Size) -> int:
        """How many entries to ask for, at least one; by their mean size so far
        they fit into a batch."""
        left = self._largest - so_far.entries
        if so_far.entries == 0:
            return min(self.size, FIRST_READ_ENTRIES)
        mean_bytes = max(1, so_far.bytes // so_far.entries)
        fitting = (BATCH_BYTES - so_far.bytes) // mean_bytes
        return max(1, min(left, READ_ENTRIES, fitting))

    def patience_s(self, so_far: Size, age_s: float) -> float:
        """How long to wait for more; not at all once there is enough."""
        if so_far.entries == 0:
            return IDLE_S
        if so_far.entries >= self.size:
            return 0.0
        return min(IDLE_S, max(0.0, self.max_age_s - age_s))

    @property
    def _largest(self) -> int:
        return self.size * GROWTH


def itself(fields: Fields) -> Sequence[Fields]:
    """For entries that hold one event each."""
    return (fields,)


class Batch:
    """Entries as they came, and what they are: events, or poison."""

    def __init__(self, decode: Decode, parts: Parts = itself) -> None:
        """`parts` takes entries apart that hold several events."""
        self._decode = decode
        self._parts = parts
        self.entries: list[Entry] = []
        self.events: list[StreamedEvent] = []
        self.dead: list[DeadLetter] = []
        self.size = Size()

    def add(self, entries: Sequence[Entry], asked: int) -> None:
        """Decoded at once: the database writes the batch before meanwhile."""
        for entry in entries:
            for fields in self._parts(entry.fields):
                decoded = self._decode(entry.id, fields)
                if isinstance(decoded, DeadLetter):
                    self.dead.append(decoded)
                else:
                    self.events.append(decoded)
        self.entries += entries
        self.size = Size(
            entries=len(self.entries),
            bytes=self.size.bytes + sum(map(_bytes, entries)),
            more=len(entries) >= asked,
        )

    def fields_of(self, event: StreamedEvent) -> Fields:
        """What an event was read from. Seldom asked: it is looked for."""
        id_ = event.id.encode()
        entry = next(entry for entry in self.entries if entry.id == event.entry_id)
        parts = self._parts(entry.fields)
        return next((part for part in parts if part.get(b"id") == id_), entry.fields)


def _bytes(entry: Entry) -> int:
    return sum(map(len, entry.fields.values()))
