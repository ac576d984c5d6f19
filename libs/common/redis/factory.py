"""Which Redis a URL means: clients for it, for event loops and for threads. None
connects before its first use.

A primary may change under a client: Sentinels name another one, or a host's name
leads elsewhere. A connection whose server became a replica is closed, so that the
next one is made to whoever is the primary by then. But a primary that was replaced
may not know of it for ten seconds and more, and what is written to it is lost: so
Sentinels are asked again and again, also while all seems well."""

import asyncio
import contextlib
from typing import Any

from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.asyncio import sentinel as loops
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry as BlockingRetry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool

from libs.common.redis.url import RedisUrl, parse
from libs.common.runtime.tls import tls_cause

# One that is gone must not use up the time in which the others can be asked.
SENTINEL_TIMEOUT_S = 0.5
LOOK_EVERY_S = 1.0  # how often they are asked again


def client(url: str, connect_s: float, answer_s: float) -> Redis:
    place, options = parse(url), _options(connect_s, answer_s)
    options["retry"] = Retry(NoBackoff(), 0)
    if not place.sentinels:
        return Redis.from_url(place.server, **options)
    primary, sentinels = _of_sentinels(place, options)
    watch = loops.Sentinel(place.sentinels, sentinel_kwargs=sentinels)  # type: ignore[no-untyped-call]
    made: Redis = watch.master_for(
        place.service, connection_pool_class=_FollowingPool, **primary
    )
    return made


def blocking_client(url: str, connect_s: float, answer_s: float) -> BlockingRedis:
    place, options = parse(url), _options(connect_s, answer_s)
    options["retry"] = BlockingRetry(NoBackoff(), 0)
    if not place.sentinels:
        return BlockingRedis.from_url(place.server, **options)
    primary, sentinels = _of_sentinels(place, options)
    watch = Sentinel(place.sentinels, sentinel_kwargs=sentinels)  # type: ignore[no-untyped-call]
    made: BlockingRedis = watch.master_for(place.service, **primary)  # type: ignore[no-untyped-call]
    return made


def _options(connect_s: float, answer_s: float) -> dict[str, Any]:
    return {
        "protocol": 2,  # replies are lists and bytes, with the parser's fast path
        "socket_connect_timeout": connect_s,
        "socket_timeout": answer_s,
        # With no retry at all, this closes the connection and no more.
        "retry_on_error": [ReadOnlyError],
    }


def _of_sentinels(
    place: RedisUrl, options: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """How to connect to the primary, and how to its Sentinels: the same way, but
    for credentials and patience."""
    primary: dict[str, Any] = {**parse_url(place.server), **options}  # type: ignore[no-untyped-call]
    primary["ssl"] = primary.pop("connection_class", None) is not None
    for told in ("host", "port"):
        primary.pop(told, None)
    theirs = ("protocol", "retry", "ssl")
    sentinels = {k: v for k, v in primary.items() if k.startswith(theirs)}
    sentinels.pop("retry_on_error", None)
    timeouts = ("socket_connect_timeout", "socket_timeout")
    sentinels |= dict.fromkeys(timeouts, SENTINEL_TIMEOUT_S)
    return primary, sentinels | dict(place.sentinel_login)


class _FollowingPool(loops.SentinelConnectionPool):
    """redis-py asks Sentinels when it makes a connection; this one goes on asking as
    long as connections are used. Its end is the end of those to Sentinels, too."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        self._look_at = 0.0  # loop time
        self._looking: asyncio.Task[None] | None = None

    async def get_connection(self, *args: Any, **options: Any) -> Any:
        now = asyncio.get_running_loop().time()
        if now >= self._look_at and (self._looking is None or self._looking.done()):
            self._look_at = now + LOOK_EVERY_S
            # Beside the command, which shall not wait for Sentinels that are away.
            self._looking = asyncio.create_task(self._look())
        return await super().get_connection(*args, **options)  # type: ignore[no-untyped-call]

    async def _look(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            await self.get_master_address()  # type: ignore[no-untyped-call]

    async def release(self, connection: Any) -> None:
        if self.master_address not in (None, (connection.host, connection.port)):
            await connection.disconnect()
        await super().release(connection)

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            if self._looking is not None:
                self._looking.cancel()
            await self.sentinel_manager.aclose()


async def replaced(client: Redis, connection: Any) -> bool:
    """Do Sentinels by now name another primary than the one `connection` is to? For
    connections that were made by hand; those of the pool are looked after."""
    pool = client.connection_pool
    if not isinstance(pool, _FollowingPool):
        return False
    # Whatever goes wrong with asking: who asks must be there to ask again.
    with contextlib.suppress(Exception):
        primary = await pool.get_master_address()  # type: ignore[no-untyped-call]
        return bool(primary != (connection.host, connection.port))
    return False  # nobody says so


def replaced_blocking(client: BlockingRedis, connection: Any) -> bool:
    """The same for a thread."""
    pool = client.connection_pool
    if not isinstance(pool, SentinelConnectionPool):
        return False
    with contextlib.suppress(RedisError, OSError):
        primary = pool.get_master_address()  # type: ignore[no-untyped-call]
        return bool(primary != (connection.host, connection.port))
    return False


def cause_of(error: BaseException) -> str:
    """Why Redis cannot be used, in a few words without a secret."""
    if isinstance(error, MasterNotFoundError | loops.MasterNotFoundError):
        return _no_primary(str(error))
    if (tls := tls_cause(error)) is not None:
        return f"TLS: {tls}"
    if isinstance(error, AuthenticationError | NoPermissionError):
        return f"it refuses the user: {error}"[:200].rstrip(".")
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = " ".join(str(error).split()).rstrip(".")[:200]
    if isinstance(error, ResponseError):
        return f"it refuses: {text}"
    return text or type(error).__name__


def _no_primary(text: str) -> str:
    """redis-py keeps only the text of what each Sentinel's connection raised."""
    for sign in ("certificate verify failed", "WRONGPASS", "NOAUTH", "Authentication"):
        if sign.lower() in text.lower():
            return f"no Sentinel tells the primary: {sign}"
    return "no Sentinel that answers knows a primary of that name"
