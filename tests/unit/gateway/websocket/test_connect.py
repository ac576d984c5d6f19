"""Opens an upstream's socket: failover of the upgrade, and the move to the resource
that the first request belongs to."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.protocol import State

from libs.common.bodies.hints import Hints
from libs.common.contracts.catalogue import Alias
from libs.common.errors import RedisAway
from libs.common.proxy_keys import Principal
from libs.common.routing.functions import RoutingFunctions
from libs.common.routing.types import (
    DECIDED,
    Asker,
    Decision,
    ForeignId,
    NoCapacity,
    Owner,
    OwnerGone,
    OwnerLimited,
    digest,
    session_digest,
)
from services.gateway.errors import Problem
from services.gateway.proxy.services import Limits
from services.gateway.proxy.steps import ACQUIRED, Failure
from services.gateway.proxy.turn_lifecycle import TurnLifecycle
from services.gateway.upstream.connector import Dialer
from services.gateway.upstream.errors import NoFreeConnection, NotSent
from services.gateway.websocket.connect import SocketConnector
from services.gateway.websocket.leases import SocketLeases
from services.gateway.websocket.upstream import Opened, Opener
from tests.support.clients.websocket_peer import Peer
from tests.support.memory.clock import settled, timeless
from tests.support.memory.plane import SECRET, World
from tests.support.memory.socket_talk import Sockets, Talk
from tests.support.memory.twin import Twin, resource

DONE = {
    "type": "response.completed",
    "response": {"id": "resp_9", "object": "response"},
}
WLC = "weighted_least_connections"
AT_A = Decision("a", WLC, "v3")
IN_B = Owner("b", "account-b")
NAMED = Hints(model="m", bound_ids=("resp_1",), named=("resp_1",))


def made(root: Path) -> World:
    world = World(root, Twin(resource("a"), resource("b"), resource("c")))
    world.twin.says.append(AT_A)
    return world


async def joined(root: Path) -> tuple[World, Sockets, Talk]:
    world = made(root)
    sockets = Sockets(world)
    talk = await sockets.opened()
    assert world.wires.dialled[0][0].host == "a.test"
    return world, sockets, talk


# Opening -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "cause", "verdict"),
    [
        (429, b"{}", "rate_limited", "limited"),
        (401, b"{}", "key_refused", "refused"),
        (403, b'{"error":{"code":"model_not_found"}}', "model_refused", "neutral"),
        (503, b"no JSON", "server_error", "fault"),
    ],
)
@timeless
async def test_a_refused_upgrade_is_retried_at_another_resource(
    tmp_path: Path, status: int, body: bytes, cause: str, verdict: str
) -> None:
    world = made(tmp_path)
    sockets = Sockets(world)
    talk = await sockets.asks()
    # A date, as RFC 9110 section 10.2.3 allows.
    sockets.upstream(0).refuses(
        status, body, retry_after="Thu, 01 Jan 2026 00:00:00 GMT"
    )
    await settled()
    sockets.upstream(1).accepts()
    await settled()
    talk.hears()
    assert talk.peer.answer is not None
    assert talk.peer.answer.status_code == 101
    assert world.decisions[-1]["cause"] == cause
    assert world.decisions[-1]["resource_id"] != "a"
    release = world.twin.released[0]
    assert release.verdict is not None
    assert (release.verdict.kind, release.event) == (verdict, None)
    await talk.closes()
    await talk.ended()


@timeless
async def test_a_refusal_that_is_not_retried_is_forwarded(tmp_path: Path) -> None:
    world = made(tmp_path)
    sockets = Sockets(world)
    talk = await sockets.asks()
    sockets.upstream(0).refuses(404, b'{"error":{"code":"x"}}')
    await settled()
    assert talk.refusal == (404, "x")
    assert len(world.upstreams) == 1


@pytest.mark.parametrize(
    ("error", "verdict"),
    [(NotSent("no route"), "fault"), (NoFreeConnection(), "neutral")],
)
@timeless
async def test_without_a_reachable_upstream_the_client_gets_502(
    tmp_path: Path, error: Exception, verdict: str
) -> None:
    world = made(tmp_path)
    world.wires.error = error
    talk = await Sockets(world).asks()
    assert talk.refusal == (502, "upstream_unreachable")
    assert len(world.decisions) == 3
    kinds = [r.verdict.kind for r in world.twin.released if r.verdict]
    assert kinds == [verdict] * 3
    assert world.requests[0]["attempts"] == 3
    world.in_flight.active.clear()


@timeless
async def test_without_more_capacity_the_last_refusal_is_forwarded(
    tmp_path: Path,
) -> None:
    world = made(tmp_path)
    world.twin.says.append(NoCapacity(1000))
    sockets = Sockets(world)
    talk = await sockets.asks()
    sockets.upstream(0).refuses(500, b'{"error":{"code":"x"}}')
    await settled()
    assert talk.refusal == (500, "x")


@timeless
async def test_an_upgrade_counts_as_load_while_it_runs(tmp_path: Path) -> None:
    world = made(tmp_path)
    sockets = Sockets(world)
    talk = await sockets.asks()
    assert world.offline.local.leases["a"]
    sockets.upstream().accepts()
    await settled()
    assert not world.offline.local.leases["a"]
    await talk.closes()
    await talk.ended()


# Moving ------------------------------------------------------------------------


def owned(world: World, kind: str) -> dict[str, Any]:
    """Fields of a request that belongs to b, by an id or a session."""
    if kind == "id":
        world.twin.local.remember({}, {digest("resp_1"): IN_B})
        return {"previous_response_id": "resp_1"}
    world.twin.local.remember({session_digest("s"): IN_B}, {})
    return {"metadata": {"session_id": "s"}}


@pytest.mark.parametrize("kind", ["id", "session"])
@timeless
async def test_a_first_request_moves_to_the_resource_it_belongs_to(
    tmp_path: Path, kind: str
) -> None:
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m", **owned(world, kind))
    moved = sockets.upstream(1)
    moved.accepts()
    await settled()
    assert world.wires.dialled[1][0].host == "b.test"
    assert sockets.upstream(0).hears() == []
    assert sockets.upstream(0).close_code == 1000
    await settled()
    assert [frame["type"] for frame in moved.hears()] == ["response.create"]
    moved.says(DONE)
    await settled()
    assert talk.hears() == [DONE]
    await talk.closes()
    await talk.ended()
    (row,) = world.requests
    assert (row["resource_id"], row["attempts"], row["outcome"]) == (
        "b",
        2,
        "completed",
    )
    assert world.decisions[-1]["cause"] == "lives_elsewhere"
    world.is_at_rest()


async def check_not_moved(world: World, sockets: Sockets, talk: Talk) -> None:
    assert [frame["type"] for frame in sockets.upstream(0).hears()] == [
        "response.create"
    ]
    sockets.upstream(0).says(DONE)
    await settled()
    await talk.closes()
    await talk.ended()
    assert world.requests[0]["resource_id"] == "a"
    world.is_at_rest()


@pytest.mark.parametrize("how", ["refuses", "cannot be reached"])
@timeless
async def test_a_failed_move_keeps_the_socket(tmp_path: Path, how: str) -> None:
    world, sockets, talk = await joined(tmp_path)
    if how == "cannot be reached":
        world.wires.error = NotSent("no route")
    await talk.creates(model="m", **owned(world, "id"))
    if how == "refuses":
        sockets.upstream(1).refuses(503)
        await settled()
    await check_not_moved(world, sockets, talk)


@timeless
async def test_a_request_that_belongs_here_does_not_move(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path)
    world.twin.local.remember({}, {digest("resp_1"): Owner("a", "account-a")})
    await talk.creates(model="m", previous_response_id="resp_1")
    assert len(world.upstreams) == 1
    await check_not_moved(world, sockets, talk)


@timeless
async def test_ids_that_only_sql_knows_move_the_socket(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path)
    told = {"resource_id": "b", "account_id": "account-b"}
    world.owners = {"ids": {"resp_1": told}, "session": None}
    await talk.creates(model="m", previous_response_id="resp_1")
    assert world.wires.dialled[1][0].host == "b.test"
    sockets.upstream(1).accepts()
    await settled()
    await talk.closes()
    await talk.ended()
    world.is_at_rest()


@timeless
async def test_unknown_ids_do_not_move_the_socket(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path)
    # A known absence; without it Redis may have lost the id, and SQL is asked.
    world.twin.local.remember({}, {digest("resp_1"): None})
    await talk.creates(model="m", previous_response_id="resp_1")
    await check_not_moved(world, sockets, talk)


@pytest.mark.parametrize("error", [NoCapacity(1), RedisAway()])
@timeless
async def test_without_an_explanation_the_socket_does_not_move(
    tmp_path: Path, error: Exception
) -> None:
    world, sockets, talk = await joined(tmp_path)
    asked = owned(world, "id")

    async def explain(*_: object) -> None:
        raise error

    world.twin.explain = explain  # type: ignore[assignment, method-assign]
    await talk.creates(model="m", **asked)
    await check_not_moved(world, sockets, talk)


@timeless
async def test_an_owner_without_capacity_keeps_the_socket(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path)
    asked = owned(world, "id")
    world.twin.says.append(NoCapacity(1))
    await talk.creates(model="m", **asked)
    await check_not_moved(world, sockets, talk)


@timeless
async def test_an_id_of_another_tenant_keeps_the_socket(tmp_path: Path) -> None:
    world = made(tmp_path)
    world.table.put(Principal(id="k"))
    await world.refreshed()
    sockets = Sockets(world)
    talk = await sockets.opened((b"authorization", b"Bearer " + SECRET.encode()))
    asked = owned(world, "id")
    world.twin.says.append(ForeignId(0, known=True))
    await talk.creates(model="m", **asked)
    await check_not_moved(world, sockets, talk)


@timeless
async def test_a_decision_for_a_third_resource_keeps_the_socket(
    tmp_path: Path,
) -> None:
    world, sockets, talk = await joined(tmp_path)
    asked = owned(world, "id")
    world.twin.says.append(Decision("c", WLC, "v3"))
    await talk.creates(model="m", **asked)
    assert len(world.upstreams) == 1
    assert [frame["type"] for frame in sockets.upstream(0).hears()] == [
        "response.create"
    ]
    await talk.closes()
    await talk.ended()
    world.is_at_rest()


@timeless
async def test_an_alias_whose_provider_refuses_sockets_is_reported(
    tmp_path: Path,
) -> None:
    alias = Alias(alias="fast", provider_id="local", upstream_id="m-8b")
    twin = Twin(resource("a"), resource("b", provider_id="local"), aliases=(alias,))
    world = World(tmp_path, twin)
    world.twin.says.append(Decision("a", WLC, "v2"))
    sockets = Sockets(world)
    talk = await sockets.opened()
    await talk.creates(model="fast")
    sockets.upstream(1).refuses(404)
    await settled()
    (told,) = talk.hears()
    assert told["error"]["code"] == "upstream_unreachable"
    assert "refused the WebSocket with status 404" in told["error"]["message"]
    await talk.closes()
    await talk.ended()
    world.is_at_rest()


# Verdicts, and what sockets do not do ------------------------------------------


@pytest.mark.parametrize(("status", "verdict"), [(404, "neutral"), (520, "fault")])
@timeless
async def test_a_refusal_that_is_not_retried_is_a_verdict(
    tmp_path: Path, status: int, verdict: str
) -> None:
    world = made(tmp_path)
    sockets = Sockets(world)
    talk = await sockets.asks()
    sockets.upstream(0).refuses(status, b"{}")
    await settled()
    assert talk.wire.sent.startswith(b"HTTP/1.1 %d" % status)
    kinds = [r.verdict and r.verdict.kind for r in world.twin.released]
    assert kinds == [verdict, None]
    assert world.requests[0]["status_code"] == status


@timeless
async def test_a_move_that_is_refused_reports_the_other_resource(
    tmp_path: Path,
) -> None:
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m", **owned(world, "session"))
    sockets.upstream(1).refuses(404, b"{}")
    await settled()
    (release,) = world.twin.released
    assert (release.resource_id, release.event) == ("b", None)
    assert world.twin.asked[-1].previous == "b"
    await check_not_moved(world, sockets, talk)


REASONING = {"type": "reasoning", "encrypted_content": "gAAAA", "id": "rs_1"}
INVALID = {
    "type": "error",
    "status": 400,
    "error": {"code": "invalid_encrypted_content", "message": "x"},
}


async def with_reasoning(root: Path, *, replays: bool) -> tuple[World, Sockets, Talk]:
    """A socket to a, and a session whose reasoning b wrote."""
    twin = Twin(resource("a"), resource("b"), resource("c"))
    world = World(root, twin, limits=Limits(100_000, 3, 60.0, replays=replays))
    world.twin.says.append(AT_A)
    sockets = Sockets(world)
    talk = await sockets.opened()
    world.twin.local.remember({session_digest("s"): IN_B}, {})
    return world, sockets, talk


@timeless
async def test_a_frame_is_rewritten_for_another_account_if_that_is_allowed(
    tmp_path: Path,
) -> None:
    world, sockets, talk = await with_reasoning(tmp_path, replays=True)
    world.twin.says.append(OwnerGone())
    world.twin.says.append(Decision("c", "replayed_without_reasoning", "v3"))
    fields = {"metadata": {"session_id": "s"}, "input": [REASONING]}
    await talk.creates(model="m", **fields)
    assert world.twin.asked[-1].replayed
    (sent,) = sockets.upstream(0).hears()
    assert (sent["type"], sent["input"]) == ("response.create", [])
    await talk.closes()
    await talk.ended()
    world.is_at_rest()


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (OwnerGone(), 400, "invalid_encrypted_content"),
        (OwnerLimited(2500), 429, "rate_limit_exceeded"),
    ],
)
@timeless
async def test_a_frame_that_only_a_lost_account_can_read_is_refused(
    tmp_path: Path, refusal: Exception, status: int, code: str
) -> None:
    world, sockets, talk = await with_reasoning(tmp_path, replays=False)
    world.twin.says.append(refusal)
    fields = {"metadata": {"session_id": "s"}, "input": [REASONING]}
    await talk.creates(model="m", **fields)
    (told,) = talk.hears()
    assert (told["status"], told["error"]["code"]) == (status, code)
    if status == 429:
        assert told["headers"] == {"retry-after": "3"}
    assert sockets.upstream(0).hears() == []
    await talk.closes()
    await talk.ended()
    assert [row["status_code"] for row in world.requests] == [status]
    world.is_at_rest()


@pytest.mark.parametrize("replays", [True, False])
@timeless
async def test_an_account_that_cannot_read_a_frame_gets_it_without_reasoning(
    tmp_path: Path, replays: bool
) -> None:
    twin = Twin(resource("a"))
    world = World(tmp_path, twin, limits=Limits(100_000, 3, 60.0, replays=replays))
    twin.local.remember({}, {digest("rs_1"): None, digest("msg_1"): None})
    sockets = Sockets(world)
    talk = await sockets.opened()
    await talk.creates(model="m", input=[REASONING, {"role": "user", "id": "msg_1"}])
    upstream = sockets.upstream(0)
    upstream.hears()
    upstream.says(INVALID)
    await settled()
    if not replays:
        assert talk.hears() == [INVALID]
    else:
        (again,) = upstream.hears()
        assert again["input"] == [{"role": "user"}]
        upstream.says(DONE)
        await settled()
        assert talk.hears() == [DONE]
        assert world.decisions[-1]["cause"] == "request_refused"
    await talk.closes()
    await talk.ended()
    (row,) = world.requests
    assert row["outcome"] == ("completed" if replays else "failed")
    assert row["attempts"] == (2 if replays else 1)
    world.is_at_rest()


# Placing turns -----------------------------------------------------------------


class Turns:
    """Turns of a socket that leads to a."""

    def __init__(self, root: Path) -> None:
        self.world = World(root, Twin(resource("a"), resource("b")))
        leases = SocketLeases(
            cast(RoutingFunctions, self.world.twin), self.world.selector
        )
        opener = Opener(cast(Dialer, self.world.wires), 3.0)
        self.connector = SocketConnector(self.world.plane.attempts, leases, opener)

    def life(self, hints: Hints = NAMED, *, strict: bool = True) -> TurnLifecycle:
        life = self.world.in_flight.arrived_on_socket(Peer().request())
        life.admit(b"/responses", hints, None)
        if hints.bound_ids:
            life.names(None, Asker("me", strict, "n"), hints.bound_ids)
        self.world.in_flight.admitted(life)
        return life

    async def place(self, life: TurnLifecycle) -> Opened | Failure:
        await self.world.catalogue.refresh()
        connection = cast(ClientConnection, SimpleNamespace(state=State.OPEN))
        opened = Opened(connection, self.world.catalogue.targets["a"])
        life.on_socket("a")
        found = await self.connector.place(life, opened, 3)
        if not isinstance(found, Failure):
            assert found is opened
        return found

    def owned_by(self, tenant: str) -> None:
        owner = Owner("a", "account-a", tenant)
        self.world.twin.local.remember({}, {digest("resp_1"): owner})


@timeless
async def test_a_turn_takes_a_lease_where_its_socket_leads(tmp_path: Path) -> None:
    turns = Turns(tmp_path)
    life = turns.life(Hints())
    await turns.place(life)
    assert life.phase is ACQUIRED
    assert (life.record.resource_id, life.record.account_id) == ("a", "account-a")
    assert (life.record.attempts, life.reason) == (1, "socket")
    (decision,) = turns.world.decisions
    assert (decision["resource_id"], decision["reason"]) == ("a", "socket")


@timeless
async def test_a_first_turn_has_the_decision_of_its_upgrade(tmp_path: Path) -> None:
    turns = Turns(tmp_path)
    life = turns.life(Hints())
    life.acquired(Decision("a", WLC, "v"), "account-a", 2)
    await turns.place(life)
    assert (life.record.attempts, turns.world.decisions) == (2, [])
    assert turns.world.twin.asked[-1].turn == DECIDED


@timeless
async def test_a_turn_that_was_decided_elsewhere_is_decided_anew(
    tmp_path: Path,
) -> None:
    turns = Turns(tmp_path)
    life = turns.life(Hints())
    life.acquired(Decision("b", "session_affinity", "v"), "account-b", 1)
    await turns.place(life)
    assert (life.record.attempts, life.record.resource_id) == (2, "a")
    # Its lease there is taken back.
    assert turns.world.twin.asked[-1].previous == "b"
    assert len(turns.world.decisions) == 1


@timeless
async def test_a_foreign_id_is_refused(tmp_path: Path) -> None:
    turns = Turns(tmp_path)
    turns.owned_by("they")
    life = turns.life()
    with pytest.raises(Problem) as refused:
        await turns.place(life)
    assert refused.value.ledger_code == "foreign_id"
    assert life.lease() is None


@timeless
async def test_an_id_that_only_sql_knows_is_looked_up(tmp_path: Path) -> None:
    turns = Turns(tmp_path)
    told = {"resource_id": "a", "account_id": "account-a", "tenant": "me"}
    turns.world.owners = {"ids": {"resp_1": told}, "session": None}
    life = turns.life()
    await turns.place(life)
    assert life.record.resource_id == "a"
    assert turns.world.twin.asked[-1].resolved
    assert len(turns.world.decisions) == 1


@timeless
async def test_an_id_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    turns = Turns(tmp_path)
    life = turns.life()
    with pytest.raises(Problem) as refused:
        await turns.place(life)
    assert refused.value.ledger_code == "unknown_id"


@pytest.mark.parametrize("why", ["away", "no catalogue"])
@timeless
async def test_without_redis_the_gateway_decides(tmp_path: Path, why: str) -> None:
    turns = Turns(tmp_path)
    await turns.world.catalogue.refresh()
    life = turns.life(Hints(session_id="s", pool_id="pool"))
    turns.world.catalogue.refresh = nothing  # type: ignore[assignment, method-assign]
    if why == "away":
        turns.world.twin.away = True
    else:
        turns.world.twin.version = None
    life.elsewhere("lives_elsewhere")
    await turns.place(life)
    assert life.decision.degraded
    (decision,) = turns.world.decisions
    assert (decision["reason"], decision["degraded"]) == ("socket", True)
    assert (decision["session_id"], decision["pool_id"]) == ("s", "pool")
    assert decision["cause"] == "lives_elsewhere"
    assert turns.world.journal.unsent_from is not None


async def nothing() -> None:
    """In place of a call of Redis."""


@timeless
async def test_without_redis_a_first_turn_keeps_its_decision(tmp_path: Path) -> None:
    turns = Turns(tmp_path)
    await turns.world.catalogue.refresh()
    life = turns.life(Hints())
    life.acquired(Decision("a", WLC, "v"), "account-a", 1)
    turns.world.catalogue.refresh = nothing  # type: ignore[assignment, method-assign]
    turns.world.twin.away = True
    await turns.place(life)
    assert life.decision.degraded
    assert (life.record.attempts, turns.world.decisions) == (1, [])


@timeless
async def test_without_redis_foreign_ids_are_refused_too(tmp_path: Path) -> None:
    turns = Turns(tmp_path)
    await turns.world.catalogue.refresh()
    theirs = Owner("a", "account-a", "they")
    turns.world.offline.remember({}, {digest("resp_1"): theirs})
    life = turns.life()
    turns.world.catalogue.refresh = nothing  # type: ignore[assignment, method-assign]
    turns.world.twin.away = True
    with pytest.raises(Problem) as refused:
        await turns.place(life)
    assert refused.value.ledger_code == "foreign_id"
