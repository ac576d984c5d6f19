"""The gateway's connection to the node of a Cluster that has the slot of all our keys:
what `shared_connection.py` is for one server.

When the slot moves, calls that its former owner redirects, and those made meanwhile,
are sent to the new owner in the order in which they were made: a redirected call was
not executed. Calls without a reply from a node that is lost fail, as with one Redis."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import structlog
from redis.exceptions import RedisError, ResponseError

from libs.common.errors import RedisAway
from libs.common.redis import factory
from libs.common.redis.cluster.client import REDIRECTIONS, ClusterClient
from libs.common.redis.cluster.layout import Address, guarded, target_of
from libs.common.redis.cluster.wire import Awaited, Call, Reply, Told, Wire
from libs.common.redis.packing import packed
from libs.common.redis.shared_connection import ANSWER_TIMEOUT_S, RECONNECT_PAUSE_S
from libs.common.runtime.lifecycle import end

log = structlog.get_logger()
T = TypeVar("T")

CONNECT_TIMEOUT_S = 4.0  # with the questions to nodes
FOLLOW_WITHIN_S = 2.0  # longer than a call may wait while the slot moves
FOLLOW_PAUSE_S = 0.02
# Prefixes of error replies.
MOVED = "MOVED "
ASK = "ASK "
DOWN = "CLUSTERDOWN"
FUNCTION_CALL = b"\r\nFCALL\r\n"  # in the first bytes of a packed command


class ClusterConnection:
    """One connection for many callers. Calls are executed in their order.

    While no node has the slot all calls fail at once with `RedisAway`; it connects
    again by itself. An error reply (`ResponseError`) fails its own call only."""

    def __init__(self, client: ClusterClient) -> None:
        self._client = client
        self._guard = client.finder.guard
        self._loop = asyncio.get_running_loop()
        self._wire: Wire | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        # While a redirection is followed: redirected calls, and those made since.
        self._redirected: list[Call] = []
        self._held: list[Call] | None = None
        self._redirections = 0  # without another reply in between
        self._asking: set[asyncio.Task[None]] = set()
        self._trouble = ""  # why it is down, as last logged
        self.connections = 0  # made so far; more than one: replies were lost

    @property
    def up(self) -> bool:
        return self._wire is not None

    @property
    def busy(self) -> bool:
        """Whether calls wait for a reply."""
        return bool(self._held) or (self._wire is not None and self._wire.busy)

    def when_sent(self, then: Callable[[], None]) -> bool:
        """Whether calls of this loop iteration are not written yet. If so, `then` is
        called once they are, or never will be. It must not raise."""
        return self._wire is not None and self._wire.when_sent(then)

    async def open(self) -> None:
        """Connect, or keep trying. Returns after the first attempt."""
        with contextlib.suppress(RedisAway):
            self._wire = await self._connect()
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        # A connection attempt may lose a cancellation, and be repeated forever.
        await end([*filter(None, (self._keeper, self._following)), *self._asking])
        if self._wire is not None:
            self._wire.drop("was closed")
        await self._client.aclose()

    def call(self, *command: Any) -> "asyncio.Future[Reply]":
        """Send a command, which may be a form (`packing.py`); the future gets its
        reply. Canceling the future does not cancel the command."""
        return self._awaited(None, command)

    def ask(
        self, read: Callable[[Reply], T], command: tuple[Any, ...]
    ) -> "asyncio.Future[T]":
        """The same, but the future gets what `read` returns or raises for the reply,
        which may be a `ResponseError`."""
        return self._awaited(read, command)

    def tell(self, failed: Callable[[], None], command: tuple[Any, ...]) -> None:
        """Send a command without waiting for its reply. Calls `failed` if the command
        failed or its outcome is unknown."""
        try:
            ready = packed(guarded(command, self._guard))
        except (TypeError, ValueError):
            failed()
            return
        self._send(Told(ready, failed))

    def _awaited(
        self, read: Callable[[Reply], Any] | None, command: tuple[Any, ...]
    ) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = self._loop.create_future()
        try:
            ready = packed(guarded(command, self._guard))
        except (TypeError, ValueError) as error:
            refused = ResponseError(f"cannot be sent: {type(error).__name__}")
            Awaited(b"", future, read).answer(refused)
            return future
        self._send(Awaited(ready, future, read))
        return future

    def _send(self, call: Call) -> None:
        if self._held is not None:
            self._held.append(call)
        elif self._wire is not None:
            self._wire.send(call)
        else:
            call.fail(RedisAway("Redis is not connected."))

    # The connection ----------------------------------------------------------

    async def _keep(self) -> None:
        """Connects again when the connection is lost, and drops it when the node
        hangs, so that callers do not hang."""
        while True:
            wire = self._wire
            if wire is None:
                with contextlib.suppress(RedisAway):
                    self._wire = await self._connect()
                await asyncio.sleep(RECONNECT_PAUSE_S)
            elif wire.silent_s() > ANSWER_TIMEOUT_S:
                wire.drop("does not answer")
            else:
                await wire.lost_within(ANSWER_TIMEOUT_S / 4)

    async def _connect(self) -> Wire:
        connection: Any = self._client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await connection.connect()
            wire = Wire(connection, self._answered, self._lost)
        except BaseException as error:
            # Any failure: nothing else would connect again.
            await connection.disconnect(nowait=True)
            if not isinstance(error, Exception):
                raise
            self._say(factory.cause_of(error))
            raise RedisAway("Redis cannot be reached.") from error
        self._trouble = ""
        self.connections += 1
        host, port = wire.node
        log.info("redis connected", action="redis_connected", node=f"{host}:{port}")
        return wire

    def _say(self, trouble: str) -> None:
        """Log each cause once, not each attempt."""
        if trouble != self._trouble:
            log.warning(
                "redis cannot be reached", action="redis_unreachable", cause=trouble
            )
        self._trouble = trouble

    def _lost(self, wire: Wire, calls: list[Call], cause: str) -> None:
        if wire is not self._wire:
            return
        # First: whatever the handlers below do, no dead connection stays in use.
        self._wire = None
        calls = [*calls, *self._redirected, *(self._held or ())]
        self._redirected, self._held = [], None
        if self._following is not None:
            self._following.cancel()
        log.warning("redis lost", action="redis_lost", lost_calls=len(calls))
        error = RedisAway(f"Redis {cause}.")
        for call in calls:
            call.fail(error)

    # Replies -----------------------------------------------------------------

    def _answered(self, wire: Wire, call: Call, reply: Reply) -> None:
        text = str(reply) if isinstance(reply, Exception) else ""
        if text.startswith(MOVED):
            self._follow(wire, target_of(text, wire.node))
            self._redirected.append(call)
        elif text.startswith(ASK) and FUNCTION_CALL not in call.packed[:32]:
            # A function would be refused there, until all of its keys are.
            self._ask_elsewhere(target_of(text, wire.node), call)
        else:
            if self._held is None:
                self._redirections = 0
            call.answer(reply)
        if text.startswith((DOWN, "READONLY")):
            # The node may be cut off from the others, of which one took over.
            wire.drop("is in a cluster that is down")

    def _follow(self, wire: Wire, owner: Address) -> None:
        """Follow the first redirection of a connection."""
        if self._held is None:
            self._held = []
            self._redirections += 1
            self._client.finder.nodes.told(owner)
            self._following = asyncio.create_task(self._replace(wire))

    async def _replace(self, former: Wire) -> None:
        """Replace a connection by one to the new owner, and send what is held."""
        until = self._loop.time() + FOLLOW_WITHIN_S
        try:
            async with asyncio.timeout_at(until):
                await former.idle()
                wire = await self._connect_to_owner(until)
        except (TimeoutError, RedisAway):
            former.drop("moved to a node that cannot be used")
            return
        calls = [*self._redirected, *(self._held or ())]
        self._redirected, self._held = [], None
        self._wire = wire
        former.close()
        log.info("redis moved", action="redis_moved", calls=len(calls))
        for call in calls:
            wire.send(call)

    async def _connect_to_owner(self, until: float) -> Wire:
        """Raises `RedisAway` if nodes redirect to each other, and after `until`: a
        connection attempt may fail and lose the cancellation of a timeout."""
        while self._redirections <= REDIRECTIONS and self._loop.time() < until:
            try:
                return await self._connect()
            except RedisAway:
                await asyncio.sleep(FOLLOW_PAUSE_S)
        raise RedisAway

    def _ask_elsewhere(self, target: Address, call: Call) -> None:
        """The keys of a call are at the node that is getting the slot."""
        task = asyncio.create_task(self._at_target(target, call))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _at_target(self, target: Address, call: Call) -> None:
        try:
            reply = await self._client.send_asking(target, call.packed)
        except ResponseError as error:
            call.answer(error)
        except (RedisError, OSError) as error:
            cause = factory.cause_of(error)
            call.fail(RedisAway(f"Redis is moving its keys, and fails: {cause}."))
        else:
            call.answer(reply)
