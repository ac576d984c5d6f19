"""Serves `WS /v1/responses`. A client's socket is accepted once an upstream's is
open; otherwise the client gets the upstream's refusal."""

import asyncio
from typing import Any

import structlog

from libs.common.bodies.hints import read_hints
from libs.common.headers import Header, find
from libs.common.proxy_keys import Principal
from libs.common.routing.accounts import unnamed
from services.gateway import errors, event_log
from services.gateway.content.headers import JSON_TYPE, downstream
from services.gateway.errors import Problem
from services.gateway.proxy.attempts import Attempts
from services.gateway.proxy.failures import with_whole_retry_after
from services.gateway.proxy.services import Limits
from services.gateway.proxy.steps import Failure
from services.gateway.proxy.turn_lifecycle import TurnLifecycle
from services.gateway.server.body_memory import Room
from services.gateway.server.request import Request
from services.gateway.websocket.client import ClientSocket
from services.gateway.websocket.connect import SocketConnector
from services.gateway.websocket.relay import FAREWELL_S, RESTARTING, SocketRelay
from services.gateway.websocket.turn_types import TurnContext
from services.gateway.websocket.turns import PATH, SocketTurns
from services.gateway.websocket.upstream import Opened, Opener

log = structlog.get_logger()

# Headers of an upstream's 101 answer that are not for the client.
_OF_UPSTREAM = (b"sec-websocket-", b"content-", b"date", b"server")


class SocketPlane:
    """Serves upgrade requests and keeps track of the sockets."""

    def __init__(
        self,
        context: TurnContext,
        limits: Limits,
        attempts: Attempts,
        opener: Opener,
        room: Room,
    ) -> None:
        self._access = context.access
        self._context = context
        self._in_flight = context.in_flight
        self._limits = limits
        self._room = room
        self._connector = SocketConnector(attempts, context.leases, opener)
        self._draining = False
        self._relays: dict[SocketRelay, asyncio.Task[Any] | None] = {}
        # Upgrades that are being answered, and open sockets.
        self._serving: set[asyncio.Task[Any]] = set()

    def keep_alive(self) -> None:
        """Send a ping on each socket that was silent since the last call."""
        for relay in self._relays:
            relay.keep_alive()

    async def drain(self, within_s: float) -> None:
        """Close every socket once its requests have ended; after `within_s` interrupt
        the rest, which takes up to FAREWELL_S more."""
        self._draining = True
        for relay in list(self._relays):
            relay.drain()
        await self._until_closed(within_s)
        for relay in list(self._relays):
            relay.finish(RESTARTING)
        await self._until_closed(FAREWELL_S)

    async def _until_closed(self, within_s: float) -> None:
        loop = asyncio.get_running_loop()
        left, ends = within_s, loop.time() + within_s
        while self._serving and left > 0:
            await asyncio.wait(list(self._serving), timeout=left)
            left = ends - loop.time()

    async def serve(
        self, request: Request, transport: asyncio.Transport, rest: bytes
    ) -> None:
        """Serve an upgrade request and its socket. `rest` came after the request."""
        if (task := asyncio.current_task()) is not None:
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        max_message_bytes = self._limits.body_bytes
        client = ClientSocket(request, transport, max_message_bytes, self._room)
        problem = self._problem_of(request, client)
        # Data after a rejected upgrade may not be frames and is ignored.
        client.take_over(b"" if problem is not None else rest)
        if problem is not None:
            _reject(client, problem)
            return
        try:
            principal = await self._access.enter(request.headers)
            self._access.check_caller(principal, PATH, client.peer, request.headers)
        except Problem as refused:
            _reject(client, refused)
            return
        try:
            await self._open(self._upgrade(request), principal, client)
        except Exception:
            log.exception("WebSocket handler failed", action="socket_failed")
            transport.abort()

    async def _open(
        self, upgrade: TurnLifecycle, principal: Principal | None, client: ClientSocket
    ) -> None:
        opened = None
        opening = asyncio.ensure_future(self._connector.open(upgrade))
        client.closed.add_done_callback(lambda _: opening.cancel())
        try:
            upgrade.admit(PATH, read_hints(PATH, upgrade.headers, b""), principal)
            opened = await opening
            if opened is None and upgrade.failure is not None:
                self._forward_refusal(upgrade, upgrade.failure, client)
        except asyncio.CancelledError:
            if not client.closed.done():
                raise
        except Problem as problem:
            self._refuse(upgrade, problem, client)
        except Exception:
            log.exception(
                "opening an upstream's WebSocket failed", action="upgrade_failed"
            )
            self._refuse(upgrade, errors.internal(), client)
        finally:
            opening.cancel()
            self._opened(upgrade, opened)
        if opened is not None:
            await self._relay(upgrade, opened, client)

    def _problem_of(self, request: Request, client: ClientSocket) -> Problem | None:
        """Why the request cannot be served, whatever its key."""
        if not client_may_upgrade(request):
            return errors.websocket_unavailable()
        if request.problem is not None:  # an origin that is not allowed
            return request.problem
        if self._draining:
            return errors.socket_restarts()
        return None if client.valid else errors.bad_upgrade()

    def _upgrade(self, request: Request) -> TurnLifecycle:
        upgrade = self._in_flight.arrived_on_socket(request)
        self._in_flight.active[upgrade.record.id] = upgrade
        return upgrade

    def _opened(self, upgrade: TurnLifecycle, opened: Opened | None) -> None:
        """An upgrade that opened no socket is a request that failed."""
        if opened is not None:
            self._in_flight.upgraded(upgrade)
            return
        if upgrade.record.status_code is None:
            upgrade.cancelled()
        self._in_flight.settle(upgrade, None)

    # Refusals ----------------------------------------------------------------

    def _refuse(
        self, upgrade: TurnLifecycle, problem: Problem, client: ClientSocket
    ) -> None:
        upgrade.answers(problem)
        headers = [
            JSON_TYPE,
            *problem.headers,
            *upgrade.headers_of_ours,
        ]
        client.refuse(problem.status, headers, problem.body())

    def _forward_refusal(
        self, upgrade: TurnLifecycle, refused: Failure, client: ClientSocket
    ) -> None:
        headers = downstream(refused.headers, upgrade.headers_of_ours)
        if refused.status == 429:
            headers = with_whole_retry_after(headers, self._limits.pause_ms)
        client.refuse(refused.status, headers, refused.body)

    # Sockets -----------------------------------------------------------------

    async def _relay(
        self, upgrade: TurnLifecycle, opened: Opened, client: ClientSocket
    ) -> None:
        turns = SocketTurns(
            self._context, self._limits, upgrade, opened, self._connector, client.peer
        )
        relay = SocketRelay(client, turns, _accepting(upgrade, opened))
        self._relays[relay] = asyncio.current_task()
        if self._draining:
            relay.drain()
        try:
            await self._conclude_upgrade(upgrade, opened)
            await relay.run()
        finally:
            self._relays.pop(relay, None)
            await turns.upstream.connection.close()

    async def _conclude_upgrade(self, upgrade: TurnLifecycle, opened: Opened) -> None:
        """Report what the accepted upgrade showed of the resource, and release its
        lease: only running turns hold one."""
        if upgrade.decision.trial:
            self._in_flight.works_again(upgrade)
        if unnamed(opened.target.resource):
            self._in_flight.learn_account(opened.target, opened.headers)
        await self._context.leases.release_upgrade(upgrade)


def _accepting(upgrade: TurnLifecycle, opened: Opened) -> list[Header]:
    """The headers of the client's 101 answer, besides those of the handshake."""
    given = downstream(opened.headers, upgrade.headers_of_ours)
    sent = opened.target.sent
    kept = [
        (name, sent.masked(value))
        for name, value in given
        if not name.startswith(_OF_UPSTREAM)
    ]
    if find(kept, b"x-request-id") is None:
        kept.append((b"x-request-id", upgrade.record.id.encode()))
    return kept


def _reject(client: ClientSocket, problem: Problem) -> None:
    """Refuse a request that the ledger does not record."""
    event_log.refused(problem.ledger_code, problem.status)
    client.refuse(problem.status, [JSON_TYPE, *problem.headers], problem.body())


def client_may_upgrade(request: Request) -> bool:
    return request.method == "GET" and request.path == b"/v1/responses"
