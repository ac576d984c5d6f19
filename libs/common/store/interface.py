"""The one door to SQL: what a store can do, whichever database is behind it."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal, Protocol, get_args

from libs.common.contracts.events import Row, StreamedEvent, StreamedPayload
from libs.common.errors import ProxyError
from libs.common.routing.types import Owner

Table = Literal["sessions", "requests", "decisions"]
TABLES: tuple[Table, ...] = get_args(Table)
LIMIT_MAX = 500
ID_CHARS_MAX = 512  # of an id that upstreams mint; longer ones are not kept


class Unstorable(ProxyError):
    """The database refuses this data; trying again will not help."""


class SchemaTooNew(ProxyError):
    """The database's schema is newer than this version of the code knows."""


class BadQuery(ProxyError):
    """The history query makes no sense."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last row of a page: the next page holds what is older."""

    at: str
    id: str

    def encode(self) -> str:
        text = f"{self.at}|{self.id}".encode()
        return base64.urlsafe_b64encode(text).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> "Cursor":
        try:
            padded = text + "=" * (-len(text) % 4)
            raw = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
        except (binascii.Error, ValueError):
            raise BadQuery("cursor: not one of ours; pass next_cursor on") from None
        at, bar, id_ = raw.partition("|")
        if not bar or not _is_time(at) or "\0" in id_:
            raise BadQuery("cursor: not one of ours; pass next_cursor on")
        return cls(at, id_)


def _is_time(text: str) -> bool:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return False
    return len(text) == len("0000-00-00T00:00:00.000Z") and at.tzinfo == UTC


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Rows of one table, newest first. Raises `BadQuery` on nonsense."""

    table: Table
    limit: int = 100
    session_id: str | None = None
    resource_id: str | None = None
    request_id: str | None = None
    cursor: str | None = None

    def __post_init__(self) -> None:
        if self.table not in TABLES:
            raise BadQuery(f"table: one of {', '.join(TABLES)}")
        if not 1 <= self.limit <= LIMIT_MAX:
            raise BadQuery(f"limit: between 1 and {LIMIT_MAX}")
        for name in ("session_id", "resource_id", "request_id"):
            if "\0" in (getattr(self, name) or ""):
                raise BadQuery(f"{name}: a NUL character is in no stored value")
        if self.cursor is not None:
            Cursor.decode(self.cursor)

    @property
    def after(self) -> Cursor | None:
        return None if self.cursor is None else Cursor.decode(self.cursor)

    @property
    def time_column(self) -> str:
        return "last_seen_at" if self.table == "sessions" else "created_at"


@dataclass(frozen=True, slots=True)
class Page:
    """Rows by SQL column name; times are ISO 8601 UTC text in either database."""

    rows: tuple[Row, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry that cannot be stored, and why. `id` is a hash of its content."""

    id: str
    entry_id: str
    event_id: str | None
    kind: str | None
    reason: str
    data: str
    created_at_ms: int
    gateway_id: str | None = None  # whose request it was, if it was one


@dataclass(frozen=True, slots=True)
class Counts:
    """For the ledger. `requests` were ever stored, also if retention took them."""

    requests: int
    dead_letters: int
    dead_requests: int


@dataclass(frozen=True, slots=True)
class Book:
    """A gateway's account of its requests as SQL has it: what it told, and what
    was stored or parked (`dead`) of it."""

    id: str
    started_at: str | None
    last_seen_at: str | None
    accepted: int
    ended: int
    held: int
    state: str
    stored: int
    dead: int


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs from a day on, per million tokens."""

    model: str
    valid_from: datetime
    input: float
    cached_input: float
    output: float


class Store(Protocol):
    """Every method raises `StoreAway` while the database cannot do its part."""

    async def migrate(self) -> int:
        """Bring the schema up to date; returns its version. Safe to run in
        several processes at once. Raises `SchemaTooNew`."""
        ...

    async def schema_version(self) -> int:
        """0 before the first migration."""
        ...

    async def make_partitions(self, today: date) -> int:
        """Prepare the days around `today`; returns how many were made."""
        ...

    async def drop_before(self, day: date) -> int:
        """Forget requests, decisions, events, payloads and minted ids older than
        `day`;
        returns how many partitions (SQLite: rows) went."""
        ...

    async def write(self, events: Sequence[StreamedEvent]) -> int:
        """Store a batch in one transaction; returns how many events changed
        something. After an error nothing is stored and the caller must not
        acknowledge; a replay changes nothing. Raises `Unstorable`."""
        ...

    async def write_payloads(self, payloads: Sequence[StreamedPayload]) -> int:
        """Store captured bodies in one transaction; returns how many were new.
        Raises `Unstorable`."""
        ...

    async def payloads(self, request: Row) -> list[Row]:
        """The captured bodies of a request, given its row; as they are stored."""
        ...

    async def write_dead_letters(self, letters: Sequence[DeadLetter]) -> int:
        """Park poison; returns how many were new. Raises `Unstorable`."""
        ...

    async def put_prices(self, prices: Sequence[Price]) -> None:
        """These are all there are from now on."""
        ...

    async def dead_letters(self, limit: int) -> list[Row]:
        """The newest, without their `data`."""
        ...

    async def dead_letter_ids(self) -> list[str]:
        """All, oldest first."""
        ...

    async def dead_letter(self, id: str) -> Row | None: ...  # noqa: A002 - its column

    async def forget_dead_letter(self, letter: Row) -> bool:
        """Delete it, if its event is stored; says whether."""
        ...

    async def history(self, query: HistoryQuery) -> Page: ...

    async def request(self, id: str) -> Row | None:  # noqa: A002 - its column
        """One request's row with its `decisions`, in order of attempt."""
        ...

    async def owners(self, ids: Sequence[str]) -> dict[str, Owner]:
        """Who minted each of `ids`: where it lives by the newest answer that told it,
        whose it is by the first. Ids that are not known, whatever they hold, are left
        out."""
        ...

    async def session_owner(self, session_id: str, tenant: str = "") -> Owner | None:
        """Who served the newest request of the tenant's session that completed."""
        ...

    async def counts(self) -> Counts: ...

    async def books(self, ids: Sequence[str] = ()) -> tuple[Book, ...]:
        """Of each gateway of `ids`, seen lately, or with something outstanding; of
        all others in one, `*`."""
        ...

    async def fetch(self, name: str, values: Mapping[str, Any]) -> list[Row]:
        """Run one statement that both databases have, by its name, in a transaction
        of its own; its rows."""
        ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...
