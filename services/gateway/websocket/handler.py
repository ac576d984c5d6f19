"""Serves `WS /v1/responses`. A client's socket is accepted once an upstream's is
open; otherwise the client gets the upstream's refusal."""

import asyncio
from contextlib import suppress
from typing import Any

import structlog

from libs.common.bodies.hints import read_hints
from libs.common.errors import NoCatalogue, RedisAway
from libs.common.headers import Header
from libs.common.proxy_keys import Principal
from libs.common.routing.accounts import account_named, unnamed
from services.gateway import errors, metrics
from services.gateway.content.headers import downstream
from services.gateway.errors import Problem
from services.gateway.proxy.context import Exchange
from services.gateway.proxy.handler import Limits, with_whole_retry_after
from services.gateway.routing.selector import Chooser
from services.gateway.server.body_memory import Room
from services.gateway.server.request import Request
from services.gateway.websocket.client import ClientSocket
from services.gateway.websocket.connect import SocketConnector
from services.gateway.websocket.relay import FAREWELL_S, RESTARTING, SocketRelay
from services.gateway.websocket.turns import PATH, Books, SocketRequests
from services.gateway.websocket.upstream import Opened, Opener, UpgradeRefused

log = structlog.get_logger()

_JSON: Header = (b"content-type", b"application/json")


class SocketPlane:
    """Serves upgrade requests and keeps track of the sockets."""

    def __init__(
        self,
        books: Books,
        limits: Limits,
        chooser: Chooser,
        opener: Opener,
        room: Room,
    ) -> None:
        self._gate = books.gate
        self._books = books
        self._limits = limits
        self._room = room
        self._connector = SocketConnector(books, limits.attempts, chooser, opener)
        self._draining = False
        self._relays: dict[SocketRelay, asyncio.Task[Any] | None] = {}

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
        tasks = [task for task in self._relays.values() if task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)

    async def serve(
        self, request: Request, transport: asyncio.Transport, rest: bytes
    ) -> None:
        """Serve an upgrade request and its socket. `rest` came after the request."""
        max_message_bytes = self._limits.body_bytes
        client = ClientSocket(request, transport, max_message_bytes, self._room)
        problem = self._problem_of(request, client)
        # Data after a rejected upgrade may not be frames and is ignored.
        client.take_over(b"" if problem is not None else rest)
        if problem is not None:
            _reject(client, problem)
            return
        try:
            principal = await self._gate.enter(request.headers)
        except Problem as refused:
            _reject(client, refused)
            return
        try:
            await self._open(self._upgrade(request, principal), principal, client)
        except Exception:
            log.exception("WebSocket handler failed", action="socket_failed")
            transport.abort()

    async def _open(
        self, upgrade: Exchange, principal: Principal | None, client: ClientSocket
    ) -> None:
        opened = None
        opening = asyncio.ensure_future(self._connector.open(upgrade))
        client.closed.add_done_callback(lambda _: opening.cancel())
        try:
            upgrade.comes_from(principal)
            opened = await opening
        except asyncio.CancelledError:
            if not client.closed.done():
                raise
        except Problem as problem:
            self._refuse(upgrade, problem, client)
        except UpgradeRefused as refused:
            self._forward_refusal(upgrade, refused, client)
        except Exception:
            log.exception(
                "opening an upstream's WebSocket failed", action="upgrade_failed"
            )
            self._refuse(upgrade, errors.internal(), client)
        finally:
            opening.cancel()
            self._books.active.pop(upgrade.record.id, None)
            if opened is None:
                self._settle(upgrade)
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

    def _upgrade(self, request: Request, principal: Principal | None) -> Exchange:
        exchange = Exchange(request, self._books.gateway_id, "WS")
        hints = read_hints(PATH, exchange.headers, b"")
        exchange.take(hints, "" if principal is None else principal.tenant)
        exchange.record.transport = "ws"
        self._books.active[exchange.record.id] = exchange
        return exchange

    # Refusals ----------------------------------------------------------------

    def _refuse(
        self, upgrade: Exchange, problem: Problem, client: ClientSocket
    ) -> None:
        record = upgrade.record
        record.status_code = problem.status
        record.error_code = problem.ledger_code
        record.error_message = problem.message
        headers = [_JSON, *problem.headers, *upgrade.ours()]
        client.refuse(problem.status, headers, problem.body())

    def _forward_refusal(
        self, upgrade: Exchange, refused: UpgradeRefused, client: ClientSocket
    ) -> None:
        upgrade.record.status_code = refused.status
        headers = downstream(refused.headers, upgrade.ours())
        if refused.status == 429:
            headers = with_whole_retry_after(headers, self._limits.pause_ms)
        client.refuse(refused.status, headers, refused.body)

    def _settle(self, upgrade: Exchange) -> None:
        """Settle an upgrade for which no socket was opened, as a failed request."""
        record = upgrade.record
        record.latency_ms = upgrade.ms()
        record.outcome = "failed" if record.status_code else "cancelled"
        self._books.ledger.request_ended(upgrade, ())

    # Sockets -----------------------------------------------------------------

    async def _relay(
        self, upgrade: Exchange, opened: Opened, client: ClientSocket
    ) -> None:
        requests = SocketRequests(self._books, upgrade, opened, self._connector.move)
        relay = SocketRelay(client, requests)
        self._relays[relay] = asyncio.current_task()
        if self._draining:
            relay.drain()
        try:
            await self._conclude_upgrade(upgrade, opened)
            await relay.run()
        finally:
            self._relays.pop(relay, None)
            await requests.connection.close()

    async def _conclude_upgrade(self, upgrade: Exchange, opened: Opened) -> None:
        """Report what the accepted upgrade showed of the resource, and release its
        lease: only running requests hold one."""
        books, record, resource = self._books, upgrade.record, opened.target.resource
        if upgrade.trial:
            books.ledger.trial_begun_well(upgrade)
        if unnamed(resource):
            account = account_named(opened.headers)
            sent = opened.target.sent
            if account is not None and not sent.shown_in(account):
                books.ledger.account_named(resource.id, account)
        with suppress(RedisAway, NoCatalogue):
            await books.routing.abandon(record.gateway_id, [record.id])


def _reject(client: ClientSocket, problem: Problem) -> None:
    """Refuse a request that the ledger does not record."""
    metrics.count_refused(problem.ledger_code)
    client.refuse(problem.status, [_JSON, *problem.headers], problem.body())


def client_may_upgrade(request: Request) -> bool:
    return request.method == "GET" and request.path == b"/v1/responses"
