"""Captured bodies on their way to ingest: a stream of their own, written over a
connection of its own. Blocks, so it is for threads; the hot path's shared
connection never carries a body.

Every method raises `RedisAway`, or `Refused` when Redis answers with an error."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import hiredis
from redis.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from libs.common.errors import ProxyError, RedisAway
from libs.common.redis import keys
from libs.common.redis.capture_batches import Payload, batches, packed
from libs.common.redis.factory import (
    LOOK_EVERY_S,
    blocking_client,
    cause_of,
    replaced_blocking,
)

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 10.0  # a batch is megabytes


class Refused(ProxyError):
    """Redis does not take the entry: it is full, or read-only."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in Redis. `memory` is the share of its own limit that the server
    uses; 0 when it has none."""

    entries: int
    bytes: int
    memory: float


class PayloadStream:
    def __init__(self, url: str, telemetry_stream: str) -> None:
        self._stream = keys.payloads(telemetry_stream)
        self._redis = blocking_client(url, CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S)

        # Kept by hand: a pool asks the kernel each time whether all is well.
        self._connection: AbstractConnection | None = None
        self._look_at = 0.0

    def append(self, payloads: Sequence[Payload]) -> int:
        """Add all, in one round trip; how many Redis refused. After `RedisAway`
        all are in doubt and are to be sent again: stored twice is stored once."""
        if not payloads:
            return 0
        sent = list(batches(payloads))
        # Packed in C and without a pipeline's bookkeeping.
        calls = [hiredis.pack_command(self._call(batch)) for batch in sent]
        with _translated():
            connection = self._standing() or self._connected()
            self._connection = None  # replies may be left in it
            try:
                connection.send_packed_command(calls, check_health=False)  # type: ignore[no-untyped-call]
                done = _done(connection, len(sent))
            except BaseException:
                connection.disconnect()  # type: ignore[no-untyped-call]
                raise
            self._connection = connection
        return sum(
            len(batch) for batch, added in zip(sent, done, strict=True) if not added
        )

    def _standing(self) -> AbstractConnection | None:
        """The connection there is, unless it is to a primary of before."""
        connection, now = self._connection, time.monotonic()
        if connection is None or now < self._look_at:
            return connection
        self._look_at = now + LOOK_EVERY_S
        if not replaced_blocking(self._redis, connection):
            return connection
        connection.disconnect()  # type: ignore[no-untyped-call]
        self._connection = None
        return None

    def _connected(self) -> AbstractConnection:
        made: Any = self._redis.connection_pool.make_connection()
        connection: AbstractConnection = made
        connection.connect()  # type: ignore[no-untyped-call]
        return connection

    def backlog(self) -> Backlog:
        with _translated():
            entries = int(self._redis.xlen(self._stream))
            size = int(self._redis.memory_usage(self._stream) or 0)
            memory = self._redis.info("memory")
        limit = int(memory.get("maxmemory", 0))
        used = int(memory.get("used_memory", 0))
        return Backlog(entries, size, used / limit if limit else 0.0)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()  # type: ignore[no-untyped-call]
        self._redis.close()

    def _call(self, batch: Sequence[Payload]) -> Any:  # a tuple of any length
        return ("XADD", self._stream, "*", *packed(batch))


def _done(connection: AbstractConnection, asked: int) -> list[bool]:
    """Of each of so many calls, whether Redis did it. Read straight from the socket:
    redis-py takes several times what all else about an entry does."""
    sock: Any = connection._sock
    reader = hiredis.Reader()
    done: list[bool] = []
    while len(done) < asked:
        data = sock.recv(65_536)
        if not data:
            raise RedisConnectionError("the connection was closed")
        reader.feed(data)
        while (reply := reader.gets()) is not False:
            refused = isinstance(reply, hiredis.ReplyError)
            if refused:
                _leave_a_replica(reply)
            done.append(not refused)
    return done


def _leave_a_replica(refusal: hiredis.ReplyError) -> None:
    """A primary that was demoted takes nothing any more; the next one will."""
    if str(refusal).startswith("READONLY"):
        raise RedisConnectionError("it is a replica now")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ResponseError as error:
        raise Refused(f"Redis refused: {error}") from error
    except (RedisError, OSError) as error:
        raise RedisAway(f"Redis cannot be used: {cause_of(error)}.") from error
