"""The client of `client.py` for threads."""

from typing import Any

from redis import Redis
from redis.connection import Connection, ConnectionPool, SSLConnection
from redis.exceptions import MovedError, RedisError

from libs.common.redis.cluster.client import (
    ELSEWHERE,
    NODE_TIMEOUT_S,
    REDIRECTIONS,
    NotUpError,
    Options,
)
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


class BlockingFinder:
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
        self._options.pop("command_packer", None)
        self._tls = self._options.pop("ssl", False)

    def owner(self) -> Address:
        """The node that has the slot. Raises redis-py's errors."""
        if (told := self.nodes.take_told()) is not None:
            return told
        cause: Exception | None = None
        for address in self.nodes.known:
            try:
                layout = self.layout(address)
            except (RedisError, OSError) as error:
                cause = cause if isinstance(cause, NotUpError) else error
                self.nodes.silent(address)
                continue
            if layout.owner is not None:
                self.nodes.learned(layout)
                return layout.owner
            cause = NotUpError(f"no node has the slot {self.slot}")
        raise cause or NotUpError("no node is known")

    def layout(self, address: Address) -> Layout:
        """What one node says. Raises redis-py's errors."""
        info, slots = self.ask(address, ("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"))
        if not is_up(info):
            raise NotUpError("the cluster is down, or a part that is cut off")
        return layout_of(slots, address, self.slot)

    def primaries(self, address: Address) -> list[Address]:
        """All primaries, by what one node says."""
        (shards,) = self.ask(address, ("CLUSTER", "SHARDS"))
        return primaries_of(shards, address, tls=self._tls)

    def ask(self, address: Address, *commands: tuple[Any, ...]) -> list[Any]:
        """One node's replies. Raises redis-py's errors."""
        kind = SSLConnection if self._tls else Connection
        host, port = address
        connection: Any = kind(**{**self._options, "host": host, "port": port})
        try:
            connection.connect()
            replies = []
            for command in commands:
                connection.send_command(*command)
                replies.append(connection.read_response())
            return replies
        finally:
            connection.disconnect()


class OwnerConnection(Connection):
    """Asks who has the slot when it connects."""

    def __init__(self, *, finder: BlockingFinder, **options: Any) -> None:
        self._finder = finder
        super().__init__(**options)  # type: ignore[no-untyped-call]

    def connect(self) -> None:
        owner, known = self._finder.nodes.owner, (self.host, self.port)
        socket: Any = self._sock
        if socket and owner not in (None, known):
            self.disconnect()  # type: ignore[no-untyped-call]
            socket = None
        if not socket:
            self.host, self.port = self._finder.owner()
        super().connect()  # type: ignore[no-untyped-call]


class OwnerSSLConnection(OwnerConnection, SSLConnection):
    """The same by TLS."""


class BlockingClusterClient(Redis):
    """Follows a slot that was moved. While it is being moved, commands for keys that
    are at the other node already fail."""

    finder: BlockingFinder

    @classmethod
    def of(
        cls, seeds: tuple[Address, ...], options: Options, keys: Keys
    ) -> "BlockingClusterClient":
        """`options`: of a connection; `ssl` for TLS."""
        options["retry_on_error"] = [*options.get("retry_on_error", ()), *ELSEWHERE]
        finder = BlockingFinder(seeds, options, keys)
        kind = OwnerSSLConnection if options.pop("ssl", False) else OwnerConnection
        made = cls(connection_pool=ConnectionPool(kind, finder=finder, **options))
        made.auto_close_connection_pool = True
        made.finder = finder
        return made

    def execute_command(self, *args: Any, **options: Any) -> Any:
        command = guarded(args, self.finder.guard)
        for _ in range(REDIRECTIONS):
            try:
                return super().execute_command(*command, **options)  # type: ignore[no-untyped-call]
            except MovedError as error:
                asked = self.finder.nodes.owner or self.finder.nodes.known[0]
                self.finder.nodes.told(target_of(f"- {error}", asked))
        raise NotUpError("nodes redirect to each other")
