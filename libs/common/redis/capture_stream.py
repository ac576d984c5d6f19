"""The stream of captured bodies between gateways and ingest. Has a connection of its
own, so that no body delays a call on the hot path's shared connection. Blocks: for
threads.

Methods raise `RedisAway`, or `Refused` when Redis answers with an error."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from redis.connection import AbstractConnection, PythonRespSerializer
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from libs.common.contracts.payloads import Payload
from libs.common.errors import ProxyError, RedisAway
from libs.common.redis.capture_batches import Batch, batches, packed, writes
from libs.common.redis.factory import (
    LOOK_EVERY_S,
    blocking_client,
    cause_of,
    replaced_blocking,
)
from libs.common.redis.keys import DEFAULT, Keys
from libs.common.redis.keys import payloads as payloads_of

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 10.0  # for megabytes
# Longer arguments are sent without a copy, which hiredis would make: a quarter of the
# CPU time for bodies of megabytes.
COPIED_BYTES = 6_000
# Of a Cluster, for now or for good (MovedError is an AskError).
ELSEWHERE = (AskError, TryAgainError, ClusterDownError)


class Refused(ProxyError):
    """Redis rejects the entry, because it is full or read-only."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in Redis. `memory` is the used share of the server's `maxmemory`; 0
    without that limit."""

    entries: int
    bytes: int
    memory: float


class PayloadStream:
    def __init__(self, url: str, telemetry_stream: str, keys: Keys = DEFAULT) -> None:
        self._stream = payloads_of(telemetry_stream)
        packer = PythonRespSerializer(COPIED_BYTES, _encoded)
        self._redis = blocking_client(
            url, CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S, packer, keys
        )
        # Outside the pool, which polls the socket for each use, and without a pipeline,
        # which keeps all commands: half the CPU time for small bodies.
        self._connection: AbstractConnection | None = None
        self._look_at = 0.0  # monotonic seconds

    def append(self, payloads: Sequence[Payload]) -> int:
        """Add all; returns how many Redis refused. After `RedisAway` any of them may be
        missing and all are to be sent again: a payload stored twice is stored once."""
        if not payloads:
            return 0
        sent = list(batches(payloads))
        with _translated():
            connection = self._usable() or self._connected()
            self._connection = None  # it may hold unread replies from here on
            try:
                for entries in writes(sent):
                    self._write(connection, entries)
                refused = sum(len(batch) for batch in sent if not _added(connection))
            except BaseException:
                connection.disconnect()  # type: ignore[no-untyped-call]
                raise
            self._connection = connection
        return refused

    def _write(self, connection: Any, entries: Sequence[Batch]) -> None:
        calls = [("XADD", self._stream, "*", *packed(batch)) for batch in entries]
        parts = connection.pack_commands(calls)
        if len(entries) > 1 or len(entries[0]) > 1:
            # Small bodies: the event loop waits for each part that is sent, because
            # this thread gives up the interpreter lock and takes it again.
            parts = [b"".join(parts)]
        connection.send_packed_command(parts)

    def _usable(self) -> AbstractConnection | None:
        """The current connection, unless it is to a replaced primary."""
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
            memory: Any = self._redis.info("memory")
        limit = int(memory.get("maxmemory", 0))
        used = int(memory.get("used_memory", 0))
        return Backlog(entries, size, used / limit if limit else 0.0)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()  # type: ignore[no-untyped-call]
        self._redis.close()


def _added(connection: Any) -> bool:
    """Reads the reply to one call; False when Redis refused it."""
    try:
        connection.read_response()
    except ReadOnlyError as error:
        # The primary was demoted. The next connection is to the new one.
        raise RedisConnectionError("it is a replica now") from error
    except ELSEWHERE as error:
        raise RedisConnectionError("the stream is at another node") from error
    except ResponseError:
        return False
    return True


def _encoded(value: str | bytes | int) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ResponseError as error:
        raise Refused(f"Redis refused: {error}") from error
    except (RedisError, OSError) as error:
        raise RedisAway(f"Redis cannot be used: {cause_of(error)}.") from error
