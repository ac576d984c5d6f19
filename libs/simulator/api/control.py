"""The control API under /__sim/, without authentication: faults, holds, key revocation,
the journal."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec
from aiohttp import web

from libs.simulator import bodies
from libs.simulator.api import errors
from libs.simulator.api.errors import ApiError
from libs.simulator.exchange import Gate
from libs.simulator.faults.faults import parse_script
from libs.simulator.faults.holding import EVERY_KEY
from libs.simulator.state.rates import Rate
from libs.simulator.wire import Json, encode


@dataclass(frozen=True)
class Order:
    """The body of a control API request."""

    query: Mapping[str, str]
    body: Json


Action = Callable[[Order], Json]


class Control:
    """Lets a test script the upstream and read its journal."""

    def __init__(self, gate: Gate) -> None:
        self._rates = gate.rates
        self._faults = gate.faults
        self._journal = gate.journal
        self._holding = gate.holding
        self._accounts = gate.accounts

    def routes(self) -> list[web.RouteDef]:
        actions: list[tuple[str, str, Action]] = [
            ("POST", "faults", self._add_fault),
            ("GET", "faults", self._list_faults),
            ("DELETE", "faults", self._clear_faults),
            ("POST", "hold", self._hold),
            ("POST", "release", self._release),
            ("GET", "held", self._held),
            ("POST", "limits", self._limit),
            ("DELETE", "limits", self._unlimit),
            ("POST", "revoke", self._revoke),
            ("POST", "restore", self._restore),
            ("GET", "journal", self._show_journal),
            ("DELETE", "journal", self._clear_journal),
            ("POST", "settings", self._set),
            ("GET", "stats", self._stats),
        ]
        return [
            web.route(method, f"/__sim/{name}", _served(action))
            for method, name, action in actions
        ]

    def _add_fault(self, order: Order) -> Json:
        self._faults.add(parse_script(order.body))
        return self._list_faults(order)

    def _list_faults(self, _: Order) -> Json:
        return {"faults": self._faults.listed()}

    def _clear_faults(self, order: Order) -> Json:
        self._faults.clear()
        return self._list_faults(order)

    def _hold(self, order: Order) -> Json:
        self._holding.hold(str(order.body.get("key") or EVERY_KEY))
        return self._holding.shown()

    def _release(self, order: Order) -> Json:
        self._holding.release(order.body.get("key"))
        return self._holding.shown()

    def _held(self, _: Order) -> Json:
        return self._holding.shown()

    def _limit(self, order: Order) -> Json:
        self._rates.limit(msgspec.convert(order.body, Rate))
        return {"limits": self._rates.shown()}

    def _unlimit(self, _: Order) -> Json:
        self._rates.clear()
        return {"limits": []}

    def _revoke(self, order: Order) -> Json:
        self._accounts.revoke(_key(order))
        return {"revoked": self._accounts.revoked}

    def _restore(self, order: Order) -> Json:
        self._accounts.restore(_key(order))
        return {"revoked": self._accounts.revoked}

    def _show_journal(self, order: Order) -> Json:
        limit = order.query.get("limit", "")
        return self._journal.shown(
            int(limit) if limit.isdecimal() else None,
            bodies=order.query.get("bodies") == "true",
        )

    def _clear_journal(self, _: Order) -> Json:
        self._journal.clear()
        return {"entries": []}

    def _set(self, order: Order) -> Json:
        if "keep_bodies" in order.body:
            self._journal.keep_bodies = bool(order.body["keep_bodies"])
        if "name_accounts" in order.body:
            self._accounts.named = bool(order.body["name_accounts"])
        return {
            "keep_bodies": self._journal.keep_bodies,
            "name_accounts": self._accounts.named,
        }

    def _stats(self, _: Order) -> Json:
        return self._journal.stats()


def _key(order: Order) -> str:
    key = order.body.get("key")
    if not isinstance(key, str) or not key:
        raise errors.missing("key")
    return key


def _served(action: Action) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def serve(request: web.Request) -> web.Response:
        try:
            body = bodies.parsed(await request.read())
            shown, status = action(Order(request.query, body)), 200
        except ApiError as problem:
            shown, status = problem.envelope(), problem.status
        except msgspec.ValidationError as error:
            shown, status = {"error": {"message": str(error)}}, 400
        return web.Response(
            body=encode(shown), status=status, content_type="application/json"
        )

    return serve
