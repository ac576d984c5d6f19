"""What goes into a store and comes out of it."""

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, get_args

from libs.common.contracts.events import Row
from libs.common.errors import ProxyError
from libs.common.redis.keys import DEFAULT_NAMESPACE
from libs.common.store.rows import iso

Write = Callable[[], Awaitable[int]]
"""Stores a batch that was prepared, or does so again after it failed."""

Table = Literal["sessions", "requests", "decisions"]
TABLES: tuple[Table, ...] = get_args(Table)
LIMIT_MAX = 500
AFTER_EVERY_TIME = "9999-12-31T23:59:59.999Z"  # before the first page
BEFORE_EVERY_TIME = "0001-01-02T00:00:00.000Z"
STATUS = re.compile("^[1-5](xx|[0-9]{2})$")
FAILS = 400  # requests with this status or a higher one are not `completed`
TEXTS = (
    *("session_id", "resource_id", "request_id", "outcome", "model", "proxy_key_id"),
    *("team_id", "error_code", "reason"),
)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes something through the admin API. `name`: of the admin token, or one
    of those below, which no token can have. `address`: the client's. `peer`: who
    connected to the router, the client or a gateway. `expects`: the version of the row
    that they saw; None if any will do. `role`: of the token; audit rows do not have
    it, because only admins change things."""

    name: str
    address: str | None = None
    peer: str | None = None
    expects: str | None = None
    role: str = "admin"


ANYONE = "(open)"  # PROXY_ALLOW_OPEN_ADMIN
COMMAND_LINE = Actor("(command line)")


class Fetch(Protocol):
    """Runs one named statement in its own transaction (`Store.fetch`)."""

    async def __call__(
        self, name: str, values: Mapping[str, Any], by: Actor | None = None
    ) -> list[Row]: ...


class ChangedMeanwhile(ProxyError):
    """Somebody else changed the row; nothing was changed now."""


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
    """A query for rows of one table, newest first. Raises `BadQuery` if invalid.

    `since` (included) and `until` (excluded) are ISO 8601 times of the column that
    sorts. The filters after them are of requests, but for `reason`, of decisions.
    `status`: a code, or a class such as `4xx`."""

    table: Table
    limit: int = 100
    session_id: str | None = None
    resource_id: str | None = None
    request_id: str | None = None
    cursor: str | None = None
    since: str | None = None
    until: str | None = None
    status: str | None = None
    outcome: str | None = None
    model: str | None = None
    proxy_key_id: str | None = None
    team_id: str | None = None
    error_code: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.table not in TABLES:
            raise BadQuery(f"table: one of {', '.join(TABLES)}")
        if not 1 <= self.limit <= LIMIT_MAX:
            raise BadQuery(f"limit: between 1 and {LIMIT_MAX}")
        for name in TEXTS:
            if "\0" in (getattr(self, name) or ""):
                raise BadQuery(
                    f"{name}: contains a NUL character, which no stored value has"
                )
        if self.cursor is not None:
            Cursor.decode(self.cursor)
        statuses(self.status)
        time_of("from", self.since)
        time_of("to", self.until)

    @property
    def after(self) -> Cursor | None:
        return None if self.cursor is None else Cursor.decode(self.cursor)

    @property
    def before(self) -> Cursor:
        """Where the page begins: older than the cursor, and than `until`."""
        given = self.after or Cursor(AFTER_EVERY_TIME, "")
        until = time_of("to", self.until)
        if until is None or given.at < until:
            return given
        return Cursor(until, "")

    @property
    def time_column(self) -> str:
        return "last_seen_at" if self.table == "sessions" else "created_at"

    @property
    def unsuccessful(self) -> bool:
        """Whether all rows that it can find are of requests that did not complete."""
        lowest, _ = statuses(self.status)
        return (
            self.outcome not in (None, "completed")
            or self.error_code is not None
            or (lowest is not None and lowest >= FAILS)
        )

    @property
    def values(self) -> Row:
        """Values of the statement."""
        before = self.before
        lowest, highest = statuses(self.status)
        return {
            **{name: getattr(self, name) for name in TEXTS},
            "lowest_status": lowest,
            "highest_status": highest,
            "unsuccessful": self.unsuccessful,
            "since_at": time_of("from", self.since) or BEFORE_EVERY_TIME,
            "before_at": before.at,
            "before_id": before.id,
            "rows": self.limit + 1,
        }


def statuses(text: str | None) -> tuple[int | None, int | None]:
    """The lowest and the highest status of a filter: of a code, or of a class."""
    if text is None:
        return None, None
    if STATUS.fullmatch(text) is None:
        raise BadQuery("status: a code such as 429, or a class such as 4xx")
    return int(text.replace("x", "0")), int(text.replace("x", "9"))


def time_of(name: str, text: str | None) -> str | None:
    """A time in the form of stored ones."""
    try:
        at = None if text is None else datetime.fromisoformat(text)
        if at is None:
            return None
        if at.tzinfo is None:
            raise ValueError
        return iso(at)
    except (ValueError, OverflowError):
        raise BadQuery(
            f"{name}: a time in ISO 8601 with its zone, such as 2026-11-29T12:00:00Z"
        ) from None


@dataclass(frozen=True, slots=True)
class Page:
    """Rows by SQL column name. Times are ISO 8601 text in UTC in both databases."""

    rows: tuple[Row, ...]
    next_cursor: str | None

    @classmethod
    def cut(
        cls, rows: Sequence[Row], limit: int, time_column: str = "created_at"
    ) -> "Page":
        """Build a page. `rows` has one row more than the limit if there are older
        rows."""
        shown = tuple(rows[:limit])
        if len(rows) <= limit:
            return cls(shown, None)
        last = shown[-1]
        return cls(shown, Cursor(last[time_column], last["id"]).encode())


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
    were stored or became dead letters (`dead`). `shard`: where its reports are."""

    id: str
    started_at: str | None
    last_seen_at: str | None
    accepted: int
    ended: int
    held: int
    state: str
    stored: int
    dead: int
    shard: str = DEFAULT_NAMESPACE
