"""Captured bodies on their way to ingest: a stream of their own, written over a
connection of its own. Blocks, so it is for threads; the hot path's shared
connection never carries a body.

Every method raises `RedisAway`, or `Refused` when Redis answers with an error."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import hiredis
from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from libs.common import keys
from libs.common.contracts import EVENT_VERSION, PayloadEntry
from libs.common.errors import ProxyError, RedisAway

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
        self._redis = Redis.from_url(
            url,
            protocol=2,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=ANSWER_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )

        # Kept by hand: a pool asks the kernel each time whether all is well.
        self._connection: AbstractConnection | None = None

    def append(self, entries: Sequence[PayloadEntry]) -> int:
        """Add all, in one round trip; how many Redis refused. After `RedisAway`
        all are in doubt and are to be sent again: stored twice is stored once."""
        # Packed in C and without a pipeline's bookkeeping: half of the time that
        # capture takes from the event loop would go there.
        if not entries:
            return 0
        packed = b"".join([hiredis.pack_command(self._call(e)) for e in entries])
        with _translated():
            connection = self._connection or self._connected()
            self._connection = None  # replies may be left in it
            try:
                connection.send_packed_command([packed], check_health=False)  # type: ignore[no-untyped-call]
                refused = _refused(connection, len(entries))
            except BaseException:
                connection.disconnect()  # type: ignore[no-untyped-call]
                raise
            self._connection = connection
            return refused

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

    def _call(self, entry: PayloadEntry) -> Any:  # a tuple of any length
        call: tuple[str | bytes | int, ...] = (
            *("XADD", self._stream, "*", "kind", "payload"),
            *("id", entry.id, "v", EVENT_VERSION, "data", entry.data),
        )
        for name, body in entry.bodies.items():
            call += (name, body)
        return call


def _refused(connection: AbstractConnection, asked: int) -> int:
    """How many of so many replies are errors. Read straight from the socket: by
    redis-py each costs several times what all else about its entry does."""
    sock: Any = connection._sock
    reader = hiredis.Reader()
    refused = answered = 0
    while answered < asked:
        data = sock.recv(65_536)
        if not data:
            raise RedisConnectionError("the connection was closed")
        reader.feed(data)
        while (reply := reader.gets()) is not False:
            answered += 1
            refused += isinstance(reply, hiredis.ReplyError)
    return refused


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ResponseError as error:
        raise Refused(f"Redis refused: {error}") from error
    except (RedisError, OSError) as error:
        raise RedisAway(f"Redis cannot be used: {error}") from error
