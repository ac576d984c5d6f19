"""How commands reach Redis, and by whose clock. What `routing.py` is built on."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from libs.common.errors import RedisAway
from libs.common.redis.factory import cause_of


class Caller(Protocol):
    """How a command reaches Redis: the shared connection, or a client."""

    def call(self, *command: Any) -> Awaitable[Any]: ...

    def tell(self, failed: Callable[[], None], *command: Any) -> None: ...


class ClientCaller:
    """Calls by an ordinary client, for processes off the hot path."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def call(self, *command: Any) -> Any:
        try:
            return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]
        except ResponseError:
            raise
        except (RedisError, OSError) as error:
            raise RedisAway(f"Redis does not answer: {cause_of(error)}.") from error

    def tell(self, failed: Callable[[], None], *command: Any) -> None:
        def settled(done: "asyncio.Future[Any]") -> None:
            if done.cancelled() or done.exception() is not None:
                failed()

        asyncio.ensure_future(self.call(*command)).add_done_callback(settled)


Clock = Callable[[], int | str]


def servers_clock() -> str:
    """Let Redis say what time it is: skewed gateways cannot bend it."""
    return ""
