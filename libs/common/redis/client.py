"""How the routing functions send commands off the hot path. And the errors of all other
calls to Redis."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from libs.common.errors import RedisAway
from libs.common.redis.factory import cause_of
from libs.common.redis.packing import Caller, Clock, flat, servers_clock

__all__ = ["Caller", "ClientCaller", "Clock", "servers_clock", "translated"]

T = TypeVar("T")


@contextmanager
def translated() -> Iterator[None]:
    """Raises `RedisAway` for any error of redis-py."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise RedisAway(f"Redis cannot be used: {cause_of(error)}.") from error


class ClientCaller:
    """Sends commands by an ordinary client, off the hot path."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def call(self, *command: Any) -> Any:
        try:
            return await self._client.execute_command(*flat(command))  # type: ignore[no-untyped-call]
        except ResponseError:
            raise
        except (RedisError, OSError) as error:
            raise RedisAway(f"Redis does not answer: {cause_of(error)}.") from error

    async def ask(self, read: Callable[[Any], T], command: tuple[Any, ...]) -> T:
        try:
            reply = await self.call(*command)
        except ResponseError as error:
            reply = error
        return read(reply)

    def tell(self, failed: Callable[[], None], command: tuple[Any, ...]) -> None:
        def settled(done: "asyncio.Future[Any]") -> None:
            if done.cancelled() or done.exception() is not None:
                failed()

        asyncio.ensure_future(self.call(*command)).add_done_callback(settled)
