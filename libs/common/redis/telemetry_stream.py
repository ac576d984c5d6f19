"""The telemetry stream, read by one consumer group.

Stored entries are deleted, so the stream's length is the number still to be stored.
After Redis was emptied the group is created again, from the start. All methods raise
`RedisAway`."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from libs.common.contracts.events import EVENT_VERSION, Kind
from libs.common.redis import keys
from libs.common.redis.client import Caller, ClientCaller, translated

# The dead-letter stream is for inspection; the SQL table has all of them.
DEAD_LETTERS_KEPT = 10_000
# Redis serves nobody else meanwhile: 0.25 ms for so many, 5 ms for 5,000.
ACKNOWLEDGED_AT_ONCE = 250
# Error replies that say that the group does not exist.
GROUP_LOST = ("NOGROUP", "UNBLOCKED")


class Entry(NamedTuple):
    """An undecoded entry. Its id begins with the Unix ms when it was added."""

    id: str
    fields: Mapping[bytes, bytes]


class TelemetryStream:
    def __init__(
        self, redis: Redis, stream: str, group: str, reads: Caller | None = None
    ) -> None:
        """`reads`: a connection for `read` alone, which waits. Without one it uses
        `redis`, at twice the cost."""
        self._redis = redis
        self._reads = reads or ClientCaller(redis)
        self._stream = stream
        self._group = group
        # redis-py's own takes half of the CPU of a read.
        redis.set_response_callback("XREADGROUP", _unparsed)

    async def append(self, kind: Kind, id_: str, data: str | bytes) -> None:
        """Add an event in the form of `contracts.events.StreamedEvent`."""
        await self.append_fields(
            {"kind": kind, "id": id_, "v": EVENT_VERSION, "data": data}
        )

    async def append_fields(self, fields: Mapping[Any, Any]) -> None:
        """Add an entry with these fields."""
        with translated():
            await self._redis.xadd(self._stream, dict(fields))

    async def read(self, consumer: str, count: int, block_ms: int) -> list[Entry]:
        """New entries for `consumer`. Waits up to `block_ms` for the first; 0: not."""
        wait = ("BLOCK", block_ms) if block_ms else ()
        command = ("XREADGROUP", "GROUP", self._group, consumer, "COUNT", count, *wait)
        with translated():
            try:
                reply = await self._reads.call(*command, "STREAMS", self._stream, ">")
            except ResponseError as error:
                await self._make_group(error)
                return []
        return [
            Entry(id_.decode(), dict(zip(*[iter(fields)] * 2, strict=True)))
            for _, entries in reply or ()
            for id_, fields in entries
        ]

    async def claim(self, consumer: str, count: int, min_idle_ms: int) -> list[Entry]:
        """Claim entries that another consumer left pending for `min_idle_ms`."""
        cursor: Any = "0-0"
        with translated():
            while True:
                try:
                    cursor, entries, *_ = await self._redis.xautoclaim(
                        self._stream, self._group, consumer, min_idle_ms, cursor, count
                    )
                except ResponseError as error:
                    await self._make_group(error)
                    return []
                # One call examines a bounded number of entries.
                if entries or cursor in (b"0-0", "0-0"):
                    return _entries(entries)

    async def acknowledge(
        self, ids: Sequence[str], dead: Sequence[Mapping[str, str]] = ()
    ) -> int:
        """Delete stored entries, after adding dead letters. Returns the number of
        entries left. A repeated call adds the dead letters twice."""
        left = 0
        for start in range(0, len(ids) or 1, ACKNOWLEDGED_AT_ONCE):
            part = ids[start : start + ACKNOWLEDGED_AT_ONCE]
            left = await self._acknowledge(part, () if start else dead)
        return left

    async def _acknowledge(
        self, ids: Sequence[str], dead: Sequence[Mapping[str, str]]
    ) -> int:
        """The same, in one transaction."""
        pipe = self._redis.pipeline(transaction=True)
        for letter in dead:
            fields: dict[Any, Any] = dict(letter)
            pipe.xadd(
                keys.dead_letters(self._stream),
                fields,
                maxlen=DEAD_LETTERS_KEPT,
                approximate=True,
            )
        if ids:
            pipe.xack(self._stream, self._group, *ids)
            pipe.xdel(self._stream, *ids)
        pipe.xlen(self._stream)
        with translated():
            return int((await pipe.execute())[-1])

    async def entries(self, at_once: int = 500) -> AsyncIterator[list[Entry]]:
        """All entries, oldest first, in parts."""
        after = "-"
        while True:
            with translated():
                reply: Any = await self._redis.xrange(self._stream, after, "+", at_once)
            part = _entries(reply)
            yield part
            if len(part) < at_once:
                return
            after = f"({part[-1].id}"

    async def depth(self) -> int:
        """The number of entries that are not stored yet."""
        with translated():
            return int(await self._redis.xlen(self._stream))

    async def oldest_ms(self) -> int | None:
        """When the oldest entry that is not stored yet was added, in Unix ms; None if
        there is none."""
        with translated():
            entries = await self._redis.xrange(self._stream, count=1)
        first: Any = entries[0][0] if entries else None
        return None if first is None else int(first.partition(b"-")[0])

    async def leave(self, consumer: str) -> None:
        """Delete `consumer` unless it has pending entries, which the group would
        lose."""
        with translated():
            try:
                pending = await self._redis.xpending_range(
                    self._stream, self._group, "-", "+", 1, consumer
                )
                if not pending:
                    await self._redis.xgroup_delconsumer(
                        self._stream, self._group, consumer
                    )
            except ResponseError as error:
                _require_group_lost(error)

    async def _make_group(self, error: ResponseError) -> None:
        """Create the group if `error` says that it is missing; else raise `error`."""
        _require_group_lost(error)
        try:
            await self._redis.xgroup_create(
                self._stream, self._group, id="0", mkstream=True
            )
        except ResponseError as race:
            if not str(race).startswith("BUSYGROUP"):
                raise


def _require_group_lost(error: ResponseError) -> None:
    if not str(error).startswith(GROUP_LOST):
        raise error


def _unparsed(response: Any, **kwargs: Any) -> Any:  # noqa: ARG001 - redis-py's
    return response


def _entries(reply: Sequence[Any]) -> list[Entry]:
    return [Entry(id_.decode(), fields) for id_, fields in reply if fields]
