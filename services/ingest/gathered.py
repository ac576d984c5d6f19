"""A batch on its way from the stream to SQL. Pure."""

from collections.abc import Callable, Mapping, Sequence

from libs.common.contracts.events import StreamedEvent
from libs.common.redis.telemetry_stream import Entry
from libs.common.store.interface import DeadLetter
from services.ingest.batch import Size

Fields = Mapping[bytes, bytes]
Decode = Callable[[str, Fields], StreamedEvent | DeadLetter]
Parts = Callable[[Fields], Sequence[Fields]]


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
