"""A gateway's data plane in memory: tests feed and read the bytes of clients and
upstreams, and read the ledger from its journal. All parts are real except Redis (a
Python twin), the router (a function) and sockets (wires)."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import httpx

from libs.common.headers import Header
from libs.common.providers.credentials import Credentials
from libs.common.providers.sealing import Sealer
from libs.common.proxy_keys import Principal, new_secret, secret_hash
from libs.common.routing.functions import RoutingFunctions
from services.gateway.auth.access_control import AccessControl
from services.gateway.auth.authenticator import Authenticator
from services.gateway.capture.capture import Budget
from services.gateway.capture.recorder import CaptureRecorder, Inbox
from services.gateway.content.body_reader import Reader
from services.gateway.ledger.journal.journal import Journal
from services.gateway.ledger.journal.segments import Kind
from services.gateway.ledger.ledger import Ledger
from services.gateway.proxy.handler import DataPlane
from services.gateway.proxy.in_flight import InFlight
from services.gateway.proxy.services import Limits
from services.gateway.routing.catalogue import GatewayCatalogue
from services.gateway.routing.limits import LimitNotes
from services.gateway.routing.offline import OfflineRouting
from services.gateway.routing.owner_lookup import OwnerLookup
from services.gateway.routing.selector import Selector
from services.gateway.routing.waiting_room import WaitingRoom
from services.gateway.server.connection import Connection
from services.gateway.server.request import Request
from services.gateway.upstream.client import Timeouts, UpstreamClient
from services.gateway.upstream.connector import Dialer
from services.gateway.websocket.leases import SocketLeases
from services.gateway.websocket.turn_types import TurnContext
from tests.support.memory.clock import settled
from tests.support.memory.sites import OpenSite
from tests.support.memory.transports import Wire
from tests.support.memory.twin import Twin
from tests.support.memory.upstreams import Wires
from tests.support.values.rules import RULES

GATEWAY = "gw-1"
SECRET = new_secret()  # of a proxy key
REQUEST_S = 60.0
QUEUE_S = 5.0
JSON: Header = (b"content-type", b"application/json")


class Table:
    """Stands in for proxy keys and `Limits`."""

    def __init__(self) -> None:
        self.principals: dict[str, Principal] = {}

    def put(self, principal: Principal) -> None:
        self.principals = {secret_hash(SECRET.encode()): principal}

    async def version(self) -> str | None:
        return repr(self.principals)

    async def read(self) -> dict[str, Principal]:
        return self.principals


class World:
    """A gateway with its upstreams and router."""

    def __init__(
        self,
        root: Path,
        twin: Twin,
        *,
        limits: Limits | None = None,
        capture: int = 0,
        aware: bool = True,
        follows: Callable[..., InFlight] = InFlight,
    ) -> None:
        """`aware`: limits of accounts matter. `follows`: what follows requests."""
        self.twin = twin
        self.wires = Wires()
        self.table = Table()
        self.owners: dict[str, Any] = {"ids": {}, "session": None}
        routing = cast(RoutingFunctions, twin)
        self.keys = {f"KEY_{id_.upper()}": f"sk-{id_}" for id_ in ("a", "b", "c")}
        self.catalogue = GatewayCatalogue(
            routing, Credentials(self.keys, Sealer(()), RULES)
        )
        self.journal = Journal(root, GATEWAY, 0, 1 << 24, 1 << 18)
        self.authenticator = Authenticator(self.table, required=False)
        self.access = AccessControl(self.authenticator, twin)
        self.offline = OfflineRouting(self.catalogue, quotas=self.access.quotas)
        capturer = CaptureRecorder(capture, Inbox(Budget(1 << 24)), None)
        # Is a release not written to Redis yet?
        self.when_sent: Callable[[Callable[[], None]], bool] = lambda _: False
        parts = routing, self.journal, self.offline.judged, capturer
        self.ledger = Ledger(*parts, lambda then: self.when_sent(then))  # noqa: PLW0108 - tests set it
        local = self.offline.local
        router = httpx.AsyncClient(
            transport=httpx.MockTransport(self._route), base_url="http://router"
        )
        search = OwnerLookup(local.sessions, local.ids, router)
        self.selector = Selector(
            routing, self.catalogue, self.offline, search, self.ledger, 1.0
        )
        self.upstream = UpstreamClient(
            3.0, Timeouts(20.0, 20.0), cast(Dialer, self.wires)
        )
        self.limits = limits or Limits(100_000, 3, REQUEST_S)
        reader = Reader()
        self.room = WaitingRoom(routing, self.selector, GATEWAY, QUEUE_S, REQUEST_S)
        self.in_flight = follows(
            GATEWAY,
            self.ledger,
            self.offline,
            LimitNotes() if aware else None,
            self.room,
        )
        self.plane = DataPlane(
            self.limits,
            self.access,
            self.selector,
            self.in_flight,
            self.upstream,
            reader,
        )
        self.context = TurnContext(
            self.access,
            SocketLeases(routing, self.selector),
            self.in_flight,
            REQUEST_S,
            self.selector,
            reader,
        )

    def _route(self, _: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=self.owners)

    @property
    def upstreams(self) -> list[Wire]:
        """Upstream connections in the order in which they were dialed."""
        return self.wires.wires

    def client(self) -> "Client":
        return Client(self.plane)

    def events(self, kind: Kind) -> list[dict[str, Any]]:
        """Events in the journal."""
        return [
            json.loads(record.data)
            for record in self.journal.read(0, self.journal.written)
            if record.kind is kind
        ]

    @property
    def requests(self) -> list[dict[str, Any]]:
        return self.events(Kind.REQUEST)

    @property
    def decisions(self) -> list[dict[str, Any]]:
        return self.events(Kind.DECISION)

    async def refreshed(self) -> None:
        """What a heartbeat reads anew."""
        await self.authenticator.refresh()
        await self.catalogue.refresh()

    def is_at_rest(self) -> None:
        """Nothing is left of what was served: each request has one end."""
        assert self.in_flight.active == {}
        counters = self.journal.counters
        assert counters.accepted == counters.ended == len(self.requests)
        assert set(map(len, self.offline.local.leases.values())) <= {0}


class Client(OpenSite):
    """A client's connection to the plane."""

    def __init__(self, plane: DataPlane) -> None:
        super().__init__(100_000)
        self._plane = plane
        self.connection = Connection(self, asyncio.get_running_loop())
        self.wire = Wire(self.connection)

    def serve(
        self, request: Request, connection: Connection
    ) -> Coroutine[Any, Any, None]:
        return self._plane.serve(request, connection)

    async def asks(
        self,
        body: bytes = b'{"model":"m"}',
        *headers: Header,
        line: bytes = b"POST /v1/responses",
    ) -> None:
        """Send a request; returns when nothing more can run."""
        lines = [
            line + b" HTTP/1.1",
            b"host: gateway",
            b"content-length: %d" % len(body),
            *(b"%b: %b" % header for header in headers),
        ]
        self.wire.feed(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        await settled()

    @property
    def status(self) -> int:
        return int(self.wire.sent.split(b" ", 2)[1])

    @property
    def head(self) -> dict[bytes, bytes]:
        head, _, _ = self.wire.sent.partition(b"\r\n\r\n")
        pairs = (line.partition(b": ") for line in head.split(b"\r\n")[1:])
        return {name: value for name, _, value in pairs}

    @property
    def body(self) -> bytes:
        return self.wire.sent.partition(b"\r\n\r\n")[2]

    @property
    def code(self) -> str | None:
        error = json.loads(self.body)["error"]
        return None if error["code"] is None else str(error["code"])


def answer(
    body: bytes = b'{"id":"resp_1","object":"response","model":"m-1"}',
    *headers: Header,
    status: int = 200,
) -> bytes:
    """An upstream's complete answer."""
    lines = [
        b"HTTP/1.1 %d X" % status,
        b"content-length: %d" % len(body),
        *(b"%b: %b" % header for header in (JSON, *headers)),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def error(status: int, code: str | None = None, *headers: Header) -> bytes:
    told = {"error": {"code": code, "message": f"it is {code}", "param": None}}
    return answer(json.dumps(told).encode(), *headers, status=status)
