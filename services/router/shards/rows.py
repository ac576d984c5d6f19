"""What the shards of a stack tell each other, in SQL. Methods raise `StoreAway`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from libs.common.store.interface import Fetch
from libs.common.store.rows import iso

FORGOTTEN_AFTER = timedelta(days=1)
SPENDING_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard that uses the database. `instance`: a random name that its Redis keeps;
    `since`: when it was first seen with it."""

    name: str
    instance: str
    since: str
    seen_at: str


class Used(NamedTuple):
    """A row of the log: what another shard spent of a budget, at a time."""

    number: int
    subject: str
    at_ms: int
    tokens: int
    nanos: int


class Spending(NamedTuple):
    """What other shards spent after a row of the log, up to the row `newest`."""

    newest: int
    used: Sequence[Used]


class ShardRows:
    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    async def changes(self, seen: int) -> tuple[int, set[str]]:
        """The number of the newest change that the admin API of any shard made, and of
        which types of objects there are changes after the change `seen`."""
        rows = await self._fetch("changes_since", {"seen": seen})
        kinds = {row["object_type"] for row in rows} - {None}
        return rows[0]["newest"], kinds

    async def note(self, name: str, instance: str, now: datetime) -> list[Shard]:
        """Say that a shard uses this database. Return all that were seen in the last
        day."""
        await self._fetch(
            "note_shard", {"name": name, "instance": instance, "now": iso(now)}
        )
        await self._fetch("drop_shards", {"before": iso(now - FORGOTTEN_AFTER)})
        return [Shard(**row) for row in await self._fetch("shards", {})]

    async def spent_by_others(self, shard: str, seen: int) -> Spending:
        """What shards other than `shard` spent after the row `seen`."""
        values = {"seen": seen, "shard": shard, "rows": SPENDING_AT_ONCE}
        rows = await self._fetch("spend_since", values)
        newest = rows[0]["newest"]
        used = [
            Used(*(row[name] for name in Used._fields))
            for row in rows
            if row["number"] is not None
        ]
        if len(used) == SPENDING_AT_ONCE:
            newest = used[-1].number  # there may be more
        return Spending(newest, used)
