"""The interface of a store, and what both databases do in the same way. All access to
SQL goes through it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, Self

from libs.common.contracts.events import Row, StreamedEvent
from libs.common.contracts.payloads import Payload
from libs.common.contracts.prices import Price
from libs.common.routing.types import Owner
from libs.common.store.dead_letters import is_interrupted
from libs.common.store.interface import (
    Actor,
    Book,
    Counts,
    DeadLetter,
    HistoryQuery,
    Page,
    Write,
)
from libs.common.store.prices import PriceRows
from libs.common.store.rollups import Rollups
from libs.common.store.rows import row_of, storable


class Store(ABC):
    """Every method raises `StoreAway` if the database is unavailable."""

    def __init__(self) -> None:
        self.rollups = Rollups()  # what `write` adds to them

    @abstractmethod
    async def migrate(self) -> int:
        """Migrate the schema to the latest version, and return it. Safe to run in
        several processes at once. Raises `SchemaTooNew`."""

    @abstractmethod
    async def schema_version(self) -> int:
        """Return the schema version; 0 before the first migration."""

    @abstractmethod
    async def make_partitions(self, today: date) -> int:
        """Create partitions for the days around `today`; return how many."""

    @abstractmethod
    async def drop_before(self, day: date) -> int:
        """Delete requests, decisions, events, payloads and minted ids older than `day`.
        Return how many partitions (SQLite: rows) were deleted. Rollups of that time
        are deleted too."""

    @abstractmethod
    async def drop_minutes(self, before: datetime) -> None:
        """Delete rollups of minutes, and what shards told each other, before a
        time."""

    @abstractmethod
    async def write(self, events: Sequence[StreamedEvent]) -> int:
        """Store a batch in one transaction; return how many events changed a row.
        After an error nothing is stored, and the caller must not acknowledge the
        batch. A replay changes nothing. Raises `Unstorable`."""

    def prepare(self, events: Sequence[StreamedEvent]) -> Write:
        """Return what stores a batch as `write` does. What can be done without the
        database is done now, while it may still work on the batch before."""
        return partial(self.write, events)

    @abstractmethod
    async def write_payloads(self, payloads: Sequence[Payload]) -> int:
        """Store captured bodies in one transaction; return how many were new.
        Raises `Unstorable`."""

    @abstractmethod
    async def put_prices(self, prices: Sequence[Price]) -> None:
        """Replace the price list."""

    @abstractmethod
    async def request(self, id: str) -> Row | None:  # noqa: A002 - its column
        """Return the row of a request with its `decisions`, in order of attempt."""

    @abstractmethod
    async def owners(self, ids: Sequence[str]) -> dict[str, Owner]:
        """Return the owner of each known id: the account of the newest response that
        contained it, and the tenant of the first one."""

    @abstractmethod
    async def session_owner(self, session_id: str, tenant: str = "") -> Owner | None:
        """Return who served the newest completed request of a tenant's session."""

    @abstractmethod
    async def fetch(
        self, name: str, values: Mapping[str, Any], by: Actor | None = None
    ) -> list[Row]:
        """Run the statement `name`, which both databases have, in its own transaction,
        and return its rows. With `by`, the transaction also records what it changed in
        `audit_log`, if it is one of `CHANGES`."""

    @abstractmethod
    async def close(self) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @abstractmethod
    async def _put(self, name: str, rows: Iterable[Row]) -> int:
        """Run the statement `name` for each row, in one transaction; return how many
        rows changed."""

    @abstractmethod
    async def _page(self, query: HistoryQuery, values: Row) -> list[Row]:
        """Return the rows of a page of history, and one more if there are older."""

    @staticmethod
    @abstractmethod
    def _list(texts: Sequence[str]) -> Any:
        """A list of texts as a value of a statement."""

    async def payloads(self, request: Row) -> list[Row]:
        """Return the captured bodies of a request row, in stored form."""
        values = {"id": request["id"], "created_at": request["created_at"]}
        return await self.fetch("payloads_of_request", values)

    async def write_dead_letters(self, letters: Sequence[DeadLetter]) -> int:
        """Store dead letters; return how many were new. Raises `Unstorable`."""
        return await self._put("put_dead_letters", map(row_of, letters))

    async def dead_letters(self, limit: int) -> list[Row]:
        """Return the newest dead letters, without `data`."""
        return await self.fetch("dead_letters", {"rows": limit})

    async def dead_letter_ids(self) -> list[str]:
        """Return the ids of all dead letters, oldest first."""
        return [row["id"] for row in await self.fetch("dead_letter_ids", {})]

    async def dead_letter(self, id: str) -> Row | None:  # noqa: A002 - its column
        rows = await self.fetch("dead_letter", {"id": id}) if storable(id) else ()
        return rows[0] if rows else None

    async def forget_dead_letter(self, letter: Row) -> bool:
        """Delete a dead letter if its event is stored. Return whether it was
        deleted."""
        values = {"id": letter["id"], "interrupted": is_interrupted(letter)}
        return bool(await self.fetch("forget_dead_letter", values))

    async def history(self, query: HistoryQuery) -> Page:
        rows = await self._page(query, query.values)
        return Page.cut(rows, query.limit, query.time_column)

    async def counts(self) -> Counts:
        return Counts(**(await self.fetch("counts", {}))[0])

    async def books(self, ids: Sequence[str] = ()) -> tuple[Book, ...]:
        """Return the ledgers of gateways in `ids`, of those seen recently, and of those
        with missing requests. All others are summed up under the id `*`."""
        rows = await self.fetch("gateways", {"ids": self._list(ids)})
        return tuple(Book(**row) for row in rows)

    async def unpriced(self) -> list[Row]:
        """Return models without a price that were used in the last day, the most used
        first; none if there are no prices at all."""
        return await PriceRows(self.fetch).unpriced(datetime.now(UTC))

    async def ping(self) -> None:
        await self.fetch("ping", {})
