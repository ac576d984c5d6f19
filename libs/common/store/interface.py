"""The interface of a store. All access to SQL goes through it."""

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
ID_CHARS_MAX = 512  # of an upstream id; longer ids are not stored


class Unstorable(ProxyError):
    """The database rejects this data; a retry will not help."""


class SchemaTooNew(ProxyError):
    """The schema of the database is newer than this version supports."""


class BadQuery(ProxyError):
    """The history query is invalid."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last row of a page. The next page contains older rows."""

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
            raise BadQuery(
                "cursor: invalid; use next_cursor of the last page"
            ) from None
        at, bar, id_ = raw.partition("|")
        if not bar or not _is_time(at) or "\0" in id_:
            raise BadQuery("cursor: invalid; use next_cursor of the last page")
        return cls(at, id_)


def _is_time(text: str) -> bool:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return False
    return len(text) == len("0000-00-00T00:00:00.000Z") and at.tzinfo == UTC


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """A query for rows of one table, newest first. Raises `BadQuery` if invalid."""

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
                raise BadQuery(
                    f"{name}: contains a NUL character, which no stored value has"
                )
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
    """Rows by SQL column name. Times are ISO 8601 text in UTC in both databases."""

    rows: tuple[Row, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry that cannot be stored, with the reason. `id` hashes its content."""

    id: str
    entry_id: str
    event_id: str | None
    kind: str | None
    reason: str
    data: str
    created_at_ms: int
    gateway_id: str | None = None  # the gateway of the request, if known


@dataclass(frozen=True, slots=True)
class Counts:
    """Totals for the ledger. `requests` includes those deleted by retention."""

    requests: int
    dead_letters: int
    dead_requests: int


@dataclass(frozen=True, slots=True)
class Book:
    """The ledger of a gateway in SQL: what it reported, and how many of its requests
    were stored or became dead letters (`dead`)."""

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
    """The price of a model from a day on, per million tokens."""

    model: str
    valid_from: datetime
    input: float
    cached_input: float
    output: float


class Store(Protocol):
    """Every method raises `StoreAway` if the database is unavailable."""

    async def migrate(self) -> int:
        """Migrate the schema to the latest version, and return it. Safe to run in
        several processes at once. Raises `SchemaTooNew`."""
        ...

    async def schema_version(self) -> int:
        """Return the schema version; 0 before the first migration."""
        ...

    async def make_partitions(self, today: date) -> int:
        """Create partitions for the days around `today`; return how many."""
        ...

    async def drop_before(self, day: date) -> int:
        """Delete requests, decisions, events, payloads and minted ids older than `day`.
        Return how many partitions (SQLite: rows) were deleted."""
        ...

    async def write(self, events: Sequence[StreamedEvent]) -> int:
        """Store a batch in one transaction; return how many events changed a row.
        After an error nothing is stored, and the caller must not acknowledge the
        batch. A replay changes nothing. Raises `Unstorable`."""
        ...

    async def write_payloads(self, payloads: Sequence[StreamedPayload]) -> int:
        """Store captured bodies in one transaction; return how many were new.
        Raises `Unstorable`."""
        ...

    async def payloads(self, request: Row) -> list[Row]:
        """Return the captured bodies of a request row, in stored form."""
        ...

    async def write_dead_letters(self, letters: Sequence[DeadLetter]) -> int:
        """Store dead letters; return how many were new. Raises `Unstorable`."""
        ...

    async def put_prices(self, prices: Sequence[Price]) -> None:
        """Replace the price list."""
        ...

    async def dead_letters(self, limit: int) -> list[Row]:
        """Return the newest dead letters, without `data`."""
        ...

    async def dead_letter_ids(self) -> list[str]:
        """Return the ids of all dead letters, oldest first."""
        ...

    async def dead_letter(self, id: str) -> Row | None: ...  # noqa: A002 - its column

    async def forget_dead_letter(self, letter: Row) -> bool:
        """Delete a dead letter if its event is stored. Return whether it was
        deleted."""
        ...

    async def history(self, query: HistoryQuery) -> Page: ...

    async def request(self, id: str) -> Row | None:  # noqa: A002 - its column
        """Return the row of a request with its `decisions`, in order of attempt."""
        ...

    async def owners(self, ids: Sequence[str]) -> dict[str, Owner]:
        """Return the owner of each known id: the account of the newest response that
        contained it, and the tenant of the first one."""
        ...

    async def session_owner(self, session_id: str, tenant: str = "") -> Owner | None:
        """Return who served the newest completed request of a tenant's session."""
        ...

    async def counts(self) -> Counts: ...

    async def books(self, ids: Sequence[str] = ()) -> tuple[Book, ...]:
        """Return the ledgers of gateways in `ids`, of those seen recently, and of those
        with missing requests. All others are summed up under the id `*`."""
        ...

    async def fetch(self, name: str, values: Mapping[str, Any]) -> list[Row]:
        """Run the statement `name`, which both databases have, in its own transaction,
        and return its rows."""
        ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...
