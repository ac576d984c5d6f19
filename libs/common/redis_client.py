"""Redis connections: an ordinary client for control traffic, and for the hot
path one shared connection on which the calls of an event-loop tick travel
together. redis-py makes the connection (TLS, authentication, Sentinel)."""

import asyncio
import contextlib
import math
from collections import deque
from typing import Any

import hiredis
import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from libs.common.errors import RedisAway

log = structlog.get_logger()

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 2.0
RECONNECT_PAUSE_S = 0.2

Reply = Any
Refused = ResponseError  # Redis answered a call with an error: full, a replica, ...


def connect(url: str) -> Redis:
    """A client for control traffic. Connects on first use; its errors are
    redis-py's. Calls that block longer than the timeout need one of their own."""
    return Redis.from_url(
        url,
        protocol=2,  # replies are lists and bytes, with the parser's fast path
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=ANSWER_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


class SharedConnection:
    """One connection, many callers. Commands are answered in the order in which
    they were called, so a release never overtakes its acquire.

    While the connection is down every call fails at once with `RedisAway`; it
    comes back by itself. An error reply (`ResponseError`) fails its own call
    only.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._connection: AbstractConnection | None = None
        self._unsent: list[tuple[bytes, asyncio.Future[Reply]]] = []
        self._unanswered: deque[asyncio.Future[Reply]] = deque()
        self._keeper: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self.connections = 0  # made so far: more than one means replies were lost
        self._progress = 0.0  # loop time of the last reply, or of the first wait

    @property
    def up(self) -> bool:
        return self._connection is not None

    @property
    def busy(self) -> bool:
        """Are there calls that have not been answered?"""
        return bool(self._unsent or self._unanswered)

    async def open(self) -> None:
        """Connect, or begin trying. Returns after the first attempt."""
        with contextlib.suppress(RedisAway):
            await self._connect()
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        if self._keeper:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        await self._drop(RedisAway("The connection was closed."))

    def call(self, *command: Any) -> asyncio.Future[Reply]:
        """Send a command; the future gives its reply. It is sent even when the
        caller no longer waits."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if self._connection is None:
            future.set_exception(RedisAway("Redis is not connected."))
            return future
        try:
            # Here, not with the batch: replies are told apart by their order
            # alone, so what is counted as asked must be sent. hiredis packs in
            # C, redis-py's asyncio connection in Python.
            packed = hiredis.pack_command(command)
        except (TypeError, ValueError) as error:
            future.set_exception(Refused(f"cannot be sent: {type(error).__name__}"))
            return future
        self._unsent.append((packed, future))
        if self._writer is None:
            self._writer = asyncio.create_task(self._flush())
        return future

    async def _flush(self) -> None:
        """Write what the current tick collected. Calls made while a write
        waits for the socket go with the next round."""
        connection = self._connection
        try:
            while self._unsent and connection and self._connection is connection:
                batch, self._unsent = self._unsent, []
                if not self._unanswered:
                    self._progress = asyncio.get_running_loop().time()
                self._unanswered.extend(future for _, future in batch)
                packed = b"".join([call for call, _ in batch])
                await connection.send_packed_command([packed], check_health=False)
        except (RedisError, OSError) as error:
            if self._connection is connection:
                await self._drop(RedisAway(f"Redis went away: {type(error).__name__}."))
        finally:
            self._writer = None
            if self._unsent and self._connection is not None:
                # Asked of the next connection while this one was being lost.
                self._writer = asyncio.create_task(self._flush())

    async def _keep(self) -> None:
        watchdog = asyncio.create_task(self._watch_for_silence())
        try:
            while True:
                if self._connection is None:
                    try:
                        await self._connect()
                    except RedisAway:
                        await asyncio.sleep(RECONNECT_PAUSE_S)
                        continue
                await self._read_replies(self._connection)
        finally:
            watchdog.cancel()

    async def _watch_for_silence(self) -> None:
        """A Redis that hangs must not hang its callers."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(ANSWER_TIMEOUT_S / 4)
            if self._unanswered and loop.time() - self._progress > ANSWER_TIMEOUT_S:
                await self._drop(RedisAway("Redis does not answer."))

    async def _connect(self) -> None:
        connection: AbstractConnection = (
            self._client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        )
        # Hanging is watched for here; a timer for every write would cost more.
        connection.socket_timeout = None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await connection.connect()  # type: ignore[no-untyped-call]
        except (RedisError, OSError, TimeoutError) as error:
            await connection.disconnect(nowait=True)
            raise RedisAway("Redis cannot be reached.") from error
        self._connection = connection
        self.connections += 1
        log.info("redis connected", action="redis_connected")

    async def _read_replies(self, connection: AbstractConnection | None) -> None:
        # Reads also while nothing is asked, so that a loss is noticed at once.
        try:
            while connection is not None and self._connection is connection:
                self._settle(await self._next_reply(connection))
        except (RedisError, OSError, IndexError) as error:
            if self._connection is connection:
                await self._drop(RedisAway(f"Redis went away: {type(error).__name__}."))

    async def _next_reply(self, connection: AbstractConnection) -> Reply:
        try:
            return await connection.read_response(
                timeout=math.inf, disconnect_on_error=False
            )
        except ResponseError as error:
            return error

    def _settle(self, reply: Reply) -> None:
        self._progress = asyncio.get_running_loop().time()
        future = self._unanswered.popleft()
        if future.done():
            return
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    async def _drop(self, error: RedisAway) -> None:
        connection, self._connection = self._connection, None
        waiting = [*self._unanswered, *(future for _, future in self._unsent)]
        self._unanswered.clear()
        self._unsent.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # nobody may be waiting any more
        if connection is not None:
            log.warning("redis lost", action="redis_lost", lost_calls=len(waiting))
            await connection.disconnect(nowait=True)
