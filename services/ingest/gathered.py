"""A batch on its way from the stream to SQL. Pure."""

from collections.abc import Callable, Mapping, Sequence

from libs.common.contracts import StreamedEvent
from libs.common.store.port import DeadLetter
from libs.common.streams import Entry
from services.ingest.batch import Size

Decode = Callable[[str, Mapping[bytes, bytes]], StreamedEvent | DeadLetter]


class Batch:
    """Entries as they came, and what they are: events, or poison."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self.entries: list[Entry] = []
        self.events: list[StreamedEvent] = []
        self.dead: list[DeadLetter] = []
        self.size = Size()

    def add(self, entries: Sequence[Entry], asked: int) -> None:
        """Decoded at once: the database writes the batch before meanwhile."""
        for entry in entries:
            decoded = self._decode(entry.id, entry.fields)
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


def _bytes(entry: Entry) -> int:
    return sum(map(len, entry.fields.values()))
