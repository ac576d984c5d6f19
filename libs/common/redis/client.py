"""How the routing functions send commands, and which clock they use. And the errors of
all other calls to Redis."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from libs.common.errors import RedisAway
from libs.common.redis.factory import cause_of
from libs.common.redis.packing import flat

T = TypeVar("T")


@contextmanager
def translated() -> Iterator[None]:
    """Raises `RedisAway` for any error of redis-py."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise RedisAway(f"Redis cannot be used: {cause_of(error)}.") from error


class Caller(Protocol):
    """Sends commands, which may be forms (`packing.py`): the shared connection, or an
    ordinary client."""

    def call(self, *command: Any) -> Awaitable[Any]: ...

    def ask(self, read: Callable[[Any], T], command: tuple[Any, ...]) -> Awaitable[T]:
        """What `read` makes of the reply, which may be a `ResponseError`."""
        ...

    def tell(self, failed: Callable[[], None], *command: Any) -> None: ...


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

    def tell(self, failed: Callable[[], None], *command: Any) -> None:
        def settled(done: "asyncio.Future[Any]") -> None:
            if done.cancelled() or done.exception() is not None:
                failed()

        asyncio.ensure_future(self.call(*command)).add_done_callback(settled)


Clock = Callable[[], int | str]


def servers_clock() -> str:
    """The argument for the server's clock, which skewed gateways cannot affect."""
    return ""
