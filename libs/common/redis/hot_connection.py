"""The connection of a gateway to Redis, and that of ingest's reads, of either kind."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from libs.common.redis.client import Caller
from libs.common.redis.cluster.client import ClusterClient
from libs.common.redis.cluster.connection import ClusterConnection
from libs.common.redis.keys import DEFAULT, Keys
from libs.common.redis.shared_connection import SharedConnection, connect


class HotConnection(Caller, Protocol):
    """One connection for many callers, which executes calls in their order.
    `shared_connection.py` describes it."""

    connections: int  # made so far

    @property
    def up(self) -> bool: ...

    @property
    def busy(self) -> bool: ...

    def when_sent(self, then: Callable[[], None]) -> bool: ...

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def call(self, *command: Any) -> "asyncio.Future[Any]": ...


def hot_connection(url: str, keys: Keys = DEFAULT) -> HotConnection:
    """For a URL of the settings. To be opened on this event loop."""
    client = connect(url, keys)
    if isinstance(client, ClusterClient):
        return ClusterConnection(client)
    return SharedConnection(client)
