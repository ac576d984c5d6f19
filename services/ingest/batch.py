"""Batches of stream entries: their content, when to write them, and how much to read
next. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from libs.common.contracts.events import END_OF_TIME_MS, StreamedEvent
from libs.common.store.interface import DeadLetter

IDLE_S = 0.5  # how long an idle read blocks; bounds the delay of a stop
# Factor by which a batch grows under a backlog while the one before is being stored, to
# share the cost of a transaction.
GROWTH = 5
BATCH_BYTES = 8 * 2**20  # a batch of this size is due, however few entries it has
# With more entries than that, a batch may become so many times older: of the CPU of a
# small batch, the database spends most on pages and on the commit.
FEW = 20
OLDER = 5
READ_EVERY_S = 0.2  # while a batch is not due
SHORTEST_PAUSE_S = 0.001  # the event loop's timers have this resolution
# Per call, during which Redis serves no one else: 0.2 ms for events of 900 bytes.
READ_ENTRIES = 100

Fields = Mapping[bytes, bytes]
Decode = Callable[[str, Fields], Sequence[StreamedEvent | DeadLetter]]


Entry = tuple[str, Fields]  # its Redis id, and its fields


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a batch. `more`: the last read returned as many entries as requested,
    so there is probably a backlog."""

    entries: int = 0
    bytes: int = 0
    more: bool = False


@dataclass(frozen=True, slots=True)
class BatchRule:
    """A batch is due when it reaches `size` entries or its age: `max_age_s`, or
    `OLDER` times that if it has more than `few` entries. `first`: the most entries of
    its first read, when their size is not known yet."""

    size: int
    max_age_s: float
    few: int = FEW
    first: int = 64

    def due(self, so_far: Size, age_s: float, *, storing: bool) -> bool:
        """`storing`: the batch before is being stored, so this one would wait."""
        if so_far.entries == 0:
            return False
        if so_far.bytes >= BATCH_BYTES or age_s >= self._age_s(so_far):
            return True
        grows = so_far.more and storing
        return so_far.entries >= (self._largest if grows else self.size)

    def room(self, so_far: Size) -> int:
        """Return how many entries to read next, at least one. By the mean size so far,
        they fit into the batch."""
        left = self._largest - so_far.entries
        if so_far.entries == 0:
            return min(self.size, self.first)
        mean_bytes = max(1, so_far.bytes // so_far.entries)
        fitting = (BATCH_BYTES - so_far.bytes) // mean_bytes
        return max(1, min(left, READ_ENTRIES, fitting))

    def wait_s(self, so_far: Size) -> float:
        """Return for how long the next read waits for an entry: an empty batch has
        nothing else to do, and others pause between reads."""
        return IDLE_S if so_far.entries == 0 else 0.0

    def pause_s(self, so_far: Size, age_s: float) -> float:
        """Return how long to let entries accumulate before the next read. A read that
        waits returns with the first entry, so it would read them one by one."""
        if so_far.entries == 0 or so_far.more:
            return 0.0
        left_s = self._age_s(so_far) - age_s
        return min(READ_EVERY_S, max(SHORTEST_PAUSE_S, left_s))

    def _age_s(self, so_far: Size) -> float:
        return self.max_age_s * (OLDER if so_far.entries > self.few else 1)

    @property
    def _largest(self) -> int:
        return self.size * GROWTH


class Batch:
    """Entries, decoded to events and dead letters."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self.ids: list[str] = []  # of its entries
        self.events: list[StreamedEvent] = []
        self.dead: list[DeadLetter] = []
        self.size = Size()
        self.began = 0.0  # loop time of its first entry
        self.oldest_ms = END_OF_TIME_MS  # when the oldest entry was added

    def add(self, entries: Sequence[Entry], requested: int) -> None:
        """Decode and add entries, which are in order. `requested` is the number asked
        for."""
        size, decode, events = self.size.bytes, self._decode, self.events
        for id_, fields in entries:
            size += sum(map(len, fields.values()))
            for decoded in decode(id_, fields):
                if isinstance(decoded, DeadLetter):
                    self.dead.append(decoded)
                else:
                    events.append(decoded)
        if entries:
            self.ids += [id_ for id_, _ in entries]
            oldest_ms = int(entries[0][0].partition("-")[0])
            self.oldest_ms = min(self.oldest_ms, oldest_ms)
        self.size = Size(
            entries=len(self.ids), bytes=size, more=len(entries) >= requested
        )
