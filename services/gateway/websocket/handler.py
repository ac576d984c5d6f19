"""`WS /v1/responses`: one upstream socket for one client socket. The client's is
opened when the upstream's is; an upstream that refuses is passed on."""

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
from services.gateway.routing.selector import Selector
from services.gateway.server.body_memory import Room
from services.gateway.server.request import Request
from services.gateway.websocket.client import ClientSocket
from services.gateway.websocket.connect import Upgrades
from services.gateway.websocket.relay import FAREWELL_S, RETIRED, SocketRelay
from services.gateway.websocket.turns import PATH, Books, SocketRequests
from services.gateway.websocket.upstream import Opened, Opener, Refused

log = structlog.get_logger()

_JSON: Header = (b"content-type", b"application/json")


class SocketPlane:
    """Serves upgrades."""

    def __init__(
        self,
        books: Books,
        limits: Limits,
        selector: Selector,
        opener: Opener,
        room: Room,
    ) -> None:
        self._access = books.access
        self._books = books
        self._limits = limits
        self._room = room
        self._upgrades = Upgrades(books, limits.attempts, selector, opener)
        self._draining = False
        self._relays: dict[SocketRelay, asyncio.Task[Any] | None] = {}

    async def drain(self, within_s: float) -> None:
        """End all sockets, between two requests where that is soon: the server
        would cut them. Takes up to FAREWELL_S longer than `within_s`."""
        self._draining = True
        for relay in list(self._relays):
            relay.retire()
        await self._until_closed(within_s)
        for relay in list(self._relays):
            relay.finish(RETIRED)
        await self._until_closed(FAREWELL_S)

    async def _until_closed(self, within_s: float) -> None:
        tasks = [task for task in self._relays.values() if task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)

    async def serve(
        self, request: Request, transport: asyncio.Transport, rest: bytes
    ) -> None:
        """Serve the socket that a request upgrades to; `rest` came after it."""
        largest = self._limits.body_bytes
        client = ClientSocket(request, transport, largest, self._room)
        unwelcome = self._unwelcome(request)
        if unwelcome is None and not client.valid:
            unwelcome = errors.bad_upgrade()
        # What follows a bad upgrade need not be frames, and must not cost its answer.
        client.take_over(b"" if unwelcome is not None else rest)
        if unwelcome is not None:
            _turn_away(client, unwelcome)
            return
        try:
            principal = await self._access.enter(request.headers)
        except Problem as problem:
            _turn_away(client, problem)
            return
        try:
            await self._open(self._upgrade(request, principal), principal, client)
        except Exception:
            log.exception("socket failed", action="socket_failed")
            transport.abort()

    async def _open(
        self, upgrade: Exchange, principal: Principal | None, client: ClientSocket
    ) -> None:
        opened = None
        opening = asyncio.ensure_future(self._upgrades.open(upgrade))
        client.closed.add_done_callback(lambda _: opening.cancel())
        try:
            upgrade.comes_from(principal)
            opened = await opening
        except asyncio.CancelledError:
            if not client.closed.done():
                raise
        except Problem as problem:
            self._refuse(upgrade, problem, client)
        except Refused as refused:
            self._pass_on(upgrade, refused, client)
        except Exception:
            log.exception("upgrade failed", action="upgrade_failed")
            self._refuse(upgrade, errors.internal(), client)
        finally:
            opening.cancel()
            self._books.active.pop(upgrade.record.id, None)
            if opened is None:
                self._settle(upgrade)
        if opened is not None:
            await self._relay(upgrade, opened, client)

    def _unwelcome(self, request: Request) -> Problem | None:
        if not client_may_upgrade(request):
            return errors.websocket_unavailable()
        if request.problem is not None:  # a page of others
            return request.problem
        return errors.socket_restarts() if self._draining else None

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

    def _pass_on(
        self, upgrade: Exchange, refused: Refused, client: ClientSocket
    ) -> None:
        upgrade.record.status_code = refused.status
        headers = downstream(refused.headers, upgrade.ours())
        if refused.status == 429:
            headers = with_whole_retry_after(headers, self._limits.pause_ms)
        client.refuse(refused.status, headers, refused.body)

    def _settle(self, upgrade: Exchange) -> None:
        """An upgrade that came to nothing is a request that failed."""
        record = upgrade.record
        record.latency_ms = upgrade.ms()
        record.outcome = "failed" if record.status_code else "cancelled"
        self._books.ledger.request_ended(upgrade, ())

    # Sockets -----------------------------------------------------------------

    async def _relay(
        self, upgrade: Exchange, opened: Opened, client: ClientSocket
    ) -> None:
        requests = SocketRequests(self._books, upgrade, opened, self._upgrades.move)
        relay = SocketRelay(
            client.receive, client.send, requests, self._limits.body_bytes
        )
        self._relays[relay] = asyncio.current_task()
        if self._draining:
            relay.retire()
        try:
            await self._lay_down(upgrade, opened)
            await relay.run()
        finally:
            self._relays.pop(relay, None)
            await requests.connection.close()

    async def _lay_down(self, upgrade: Exchange, opened: Opened) -> None:
        """A lease is a request under way: an open socket alone holds none."""
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


def _turn_away(client: ClientSocket, problem: Problem) -> None:
    """Before it is in any book."""
    metrics.count_refused(problem.ledger_code)
    client.refuse(problem.status, [_JSON, *problem.headers], problem.body())


def client_may_upgrade(request: Request) -> bool:
    return request.method == "GET" and request.path == b"/v1/responses"
