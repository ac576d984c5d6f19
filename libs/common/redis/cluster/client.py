"""A client of the node that has the slot of all our keys, for event loops.

redis-py's own client of Clusters chooses a node for each command. All our keys are in
one slot, so this is an ordinary client, with transactions, blocking commands and raw
connections, whose connections go to the owner of the slot. One that is redirected is
closed, and the next one goes to the new owner."""

from typing import Any, Self

from redis.asyncio import Redis
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from libs.common.redis.cluster.layout import (
    Address,
    Layout,
    Nodes,
    guarded,
    is_up,
    layout_of,
    primaries_of,
    slot_of,
    target_of,
)
from libs.common.redis.keys import Keys

NODE_TIMEOUT_S = 0.5  # short, so that a dead node leaves time to ask the others
REDIRECTIONS = 5  # of one command
# The connection of a command that fails with these is closed.
ELSEWHERE = (MovedError, ClusterDownError)

Options = dict[str, Any]


class Finder:
    """Asks nodes who has the slot."""

    def __init__(
        self, seeds: tuple[Address, ...], options: Options, keys: Keys
    ) -> None:
        """`options`: of a connection, without host and port. `keys`: those that have
        the slot."""
        self.nodes = Nodes(seeds)
        self.slot = slot_of(keys)
        self.guard = keys.guard
        timeouts = ("socket_connect_timeout", "socket_timeout")
        self._options = options | dict.fromkeys(timeouts, NODE_TIMEOUT_S)
        self._tls = self._options.pop("ssl", False)

    async def owner(self) -> Address:
        """The node that has the slot. Raises redis-py's errors."""
        if (told := self.nodes.take_told()) is not None:
            return told
        cause: Exception | None = None
        for address in self.nodes.known:
            try:
                layout = await self._ask(address)
            except (RedisError, OSError) as error:
                cause = cause if isinstance(cause, NotUpError) else error
                self.nodes.silent(address)
                continue
            if layout.owner is not None:
                self.nodes.learned(layout)
                return layout.owner
            cause = NotUpError(f"no node has the slot {self.slot}")
        raise cause or NotUpError("no node is known")

    async def primaries(self) -> list[Address]:
        """All primaries, by the first node that answers. Raises redis-py's errors."""
        cause: Exception | None = None
        for address in self.nodes.known:
            try:
                async with _Asked(self.connection(address)) as asked:
                    shards = await asked.reply("CLUSTER", "SHARDS")
            except (RedisError, OSError) as error:
                cause = error
                continue
            return primaries_of(shards, address, tls=self._tls)
        raise cause or NotUpError("no node is known")

    def connection(self, address: Address) -> Any:
        """A connection to one node, which is not open yet."""
        kind = SSLConnection if self._tls else Connection
        host, port = address
        return kind(**{**self._options, "host": host, "port": port})

    async def _ask(self, address: Address) -> Layout:
        async with _Asked(self.connection(address)) as asked:
            if not is_up(await asked.reply("CLUSTER", "INFO")):
                raise NotUpError("the cluster is down, or a part that is cut off")
            slots = await asked.reply("CLUSTER", "SLOTS")
            return layout_of(slots, address, self.slot)


class NotUpError(RedisConnectionError):
    """A node answers, but the slot cannot be used."""


class _Asked:
    """An open connection, for some questions."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def __aenter__(self) -> Self:
        try:
            await self._connection.connect()
        except BaseException:
            await self._connection.disconnect(nowait=True)
            raise
        return self

    async def reply(self, *command: Any) -> Any:
        await self._connection.send_command(*command)
        return await self._connection.read_response()

    async def __aexit__(self, *_: object) -> None:
        await self._connection.disconnect(nowait=True)


class OwnerConnection(Connection):
    """Asks who has the slot when it connects. A pool connects again before each use."""

    def __init__(self, *, finder: Finder, **options: Any) -> None:
        self._finder = finder
        super().__init__(**options)

    async def connect(self) -> None:
        owner = self._finder.nodes.owner
        if self.is_connected and owner not in (None, (self.host, self.port)):
            await self.disconnect()
        if not self.is_connected:
            self.host, self.port = await self._finder.owner()
        await super().connect()  # type: ignore[no-untyped-call]


class OwnerSSLConnection(OwnerConnection, SSLConnection):
    """The same by TLS."""


class OwnerPool(ConnectionPool):
    """Connections to the owner."""

    def __init__(self, finder: Finder, **options: Any) -> None:
        self.finder = finder
        kind = OwnerSSLConnection if options.pop("ssl", False) else OwnerConnection
        super().__init__(kind, finder=finder, **options)


class ClusterClient(Redis):
    """Follows redirections. A command that is redirected was not executed."""

    @classmethod
    def of(
        cls, seeds: tuple[Address, ...], options: Options, keys: Keys
    ) -> "ClusterClient":
        """`options`: of a connection; `ssl` for TLS."""
        options["retry_on_error"] = [*options.get("retry_on_error", ()), *ELSEWHERE]
        finder = Finder(seeds, options, keys)
        made = cls(connection_pool=OwnerPool(finder, **options))
        made.auto_close_connection_pool = True
        return made

    @property
    def finder(self) -> Finder:
        pool = self.connection_pool
        assert isinstance(pool, OwnerPool)
        return pool.finder

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        command = guarded(args, self.finder.guard)
        for _ in range(REDIRECTIONS):
            try:
                return await super().execute_command(*command, **options)  # type: ignore[no-untyped-call]
            except MovedError as error:
                self.finder.nodes.told(self._target(error))
            except AskError as error:
                return await self._at_target(self._target(error), command, options)
        raise NotUpError("nodes redirect to each other")

    def _target(self, error: AskError) -> Address:
        asked = self.finder.nodes.owner or self.finder.nodes.known[0]
        return target_of(f"- {error}", asked)

    async def _at_target(
        self, target: Address, command: tuple[Any, ...], options: Options
    ) -> Any:
        if command[0] == "FCALL":
            raise TryAgainError("a slot is being moved")  # what the target would say
        connection = self.finder.connection(target)
        async with _Asked(connection) as asked:
            await asked.reply("ASKING")
            await connection.send_command(*command)
            return await self.parse_response(connection, command[0], **options)

    async def send_asking(self, target: Address, packed: bytes) -> Any:
        """Send a packed command to the node that is getting the slot."""
        connection = self.finder.connection(target)
        async with _Asked(connection) as asked:
            await asked.reply("ASKING")
            await connection.send_packed_command(packed)
            return await connection.read_response()

    def of_node(self, address: Address) -> Redis:
        """A client of one node."""
        pool = self.connection_pool
        options = {k: v for k, v in pool.connection_kwargs.items() if k != "finder"}
        kind = (
            SSLConnection
            if issubclass(pool.connection_class, SSLConnection)
            else Connection
        )
        host, port = address
        return Redis.from_pool(
            ConnectionPool(kind, **{**options, "host": host, "port": port})
        )
