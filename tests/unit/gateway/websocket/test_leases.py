"""Leases of turns, on the resource that their socket leads to."""

from pathlib import Path
from typing import cast

import pytest

from libs.common.bodies.hints import Hints
from libs.common.errors import NoCatalogue
from libs.common.routing.functions import RoutingFunctions
from libs.common.routing.types import (
    Asker,
    Decision,
    Explanation,
    ForeignId,
    NoCapacity,
    Owner,
    OwnerGone,
    UnknownIds,
    digest,
)
from services.gateway.errors import Problem
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.proxy.steps import ACQUIRED
from services.gateway.websocket.leases import SocketLeases
from tests.support.clients.websocket_peer import Peer
from tests.support.memory.clock import timeless
from tests.support.memory.plane import World
from tests.support.memory.twin import Twin, resource

A = resource("a")
NAMED = Hints(model="m", bound_ids=("resp_1",), named=("resp_1",))
MINE = Owner("a", "account-a", "me")
THEIRS = Owner("a", "account-a", "they")


class Turns:
    def __init__(self, root: Path) -> None:
        self.world = World(root, Twin(A, resource("b")))
        self.twin = self.world.twin
        self.leases = SocketLeases(
            cast(RoutingFunctions, self.twin), self.world.selector, self.world.ledger
        )

    def life(self, hints: Hints = NAMED, *, strict: bool = True) -> Lifecycle:
        life = self.world.in_flight.arrived_on_socket(Peer().request())
        life.admit(b"/responses", hints, None)
        if hints.bound_ids:
            life.names(None, Asker("me", strict, "n"), hints.bound_ids)
        self.world.in_flight.admitted(life)
        return life

    def owned_by(self, owner: Owner | None) -> None:
        self.twin.local.remember({}, {digest("resp_1"): owner})


def made(root: Path) -> Turns:
    return Turns(root)


@timeless
async def test_a_turn_takes_a_lease_where_its_socket_leads(tmp_path: Path) -> None:
    turns = made(tmp_path)
    life = turns.life(Hints())
    await turns.leases.pin(life, A)
    assert life.phase is ACQUIRED
    assert (life.record.resource_id, life.record.account_id) == ("a", "account-a")
    assert (life.record.attempts, life.reason) == (1, "socket")
    (decision,) = turns.world.decisions
    assert (decision["resource_id"], decision["reason"]) == ("a", "socket")


@timeless
async def test_a_first_turn_has_the_decision_of_its_upgrade(tmp_path: Path) -> None:
    turns = made(tmp_path)
    life = turns.life(Hints())
    life.acquired(Decision("a", "weighted_least_connections", "v"), "account-a", 2)
    await turns.leases.pin(life, A)
    assert (life.record.attempts, turns.world.decisions) == (2, [])
    assert turns.twin.asked[-1].attempt == 2


@timeless
async def test_a_turn_that_was_decided_elsewhere_is_decided_anew(
    tmp_path: Path,
) -> None:
    turns = made(tmp_path)
    life = turns.life(Hints())
    life.acquired(Decision("b", "session_affinity", "v"), "account-b", 1)
    await turns.leases.pin(life, A)
    assert (life.record.attempts, life.record.resource_id) == (2, "a")
    assert turns.twin.asked[-1].previous == "b"  # whose lease Redis takes back
    assert len(turns.world.decisions) == 1


@timeless
async def test_the_resource_may_be_gone(tmp_path: Path) -> None:
    turns = made(tmp_path)
    life = turns.life(Hints())
    with pytest.raises(OwnerGone):
        await turns.leases.pin(life, resource("c"))
    assert life.record.resource_id is None
    assert life.lease() is None


@timeless
async def test_a_foreign_id_is_refused(tmp_path: Path) -> None:
    turns = made(tmp_path)
    turns.owned_by(THEIRS)
    life = turns.life()
    with pytest.raises(Problem) as refused:
        await turns.leases.pin(life, A)
    assert refused.value.ledger_code == "foreign_id"
    assert life.lease() is None


@timeless
async def test_an_id_that_only_sql_knows_is_looked_up(tmp_path: Path) -> None:
    turns = made(tmp_path)
    turns.world.owners = {
        "ids": {
            "resp_1": {"resource_id": "a", "account_id": "account-a", "tenant": "me"}
        },
        "session": None,
    }
    life = turns.life()
    await turns.leases.pin(life, A)
    assert life.record.resource_id == "a"
    assert turns.twin.asked[-1].resolved
    assert len(turns.world.decisions) == 1


@timeless
async def test_an_id_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    turns = made(tmp_path)
    life = turns.life()
    with pytest.raises(Problem) as refused:
        await turns.leases.pin(life, A)
    assert refused.value.ledger_code == "unknown_id"


@pytest.mark.parametrize("why", ["away", "no catalogue"])
@timeless
async def test_without_redis_the_gateway_decides(tmp_path: Path, why: str) -> None:
    turns = made(tmp_path)
    await turns.world.catalogue.refresh()
    life = turns.life(Hints(session_id="s", pool_id="pool"))
    if why == "away":
        turns.twin.away = True
    else:
        turns.twin.version = None
    await turns.leases.pin(life, A)
    assert life.decision.degraded
    (decision,) = turns.world.decisions
    assert (decision["reason"], decision["degraded"]) == ("socket", True)
    assert (decision["session_id"], decision["pool_id"]) == ("s", "pool")
    assert turns.world.journal.unsent_from is not None


@timeless
async def test_without_redis_a_first_turn_keeps_its_decision(tmp_path: Path) -> None:
    turns = made(tmp_path)
    await turns.world.catalogue.refresh()
    life = turns.life(Hints())
    life.acquired(Decision("a", "weighted_least_connections", "v"), "account-a", 1)
    turns.twin.away = True
    await turns.leases.pin(life, A)
    assert life.decision.degraded
    assert turns.world.decisions == []


@timeless
async def test_without_redis_foreign_ids_are_refused_too(tmp_path: Path) -> None:
    turns = made(tmp_path)
    await turns.world.catalogue.refresh()
    turns.world.offline.remember({}, {digest("resp_1"): THEIRS})
    life = turns.life()
    turns.twin.away = True
    with pytest.raises(Problem) as refused:
        await turns.leases.pin(life, A)
    assert refused.value.ledger_code == "foreign_id"


@pytest.mark.parametrize(
    ("answer", "elsewhere"),
    [
        (Explanation("ok", "b", "session_affinity", False, 0, []), True),
        (Explanation("ok", "b", "response_affinity", False, 0, []), True),
        (Explanation("ok", "a", "session_affinity", False, 0, []), False),
        (Explanation("ok", "b", "weighted_least_connections", False, 0, []), False),
        (UnknownIds(0), True),
        (NoCapacity(1), False),
        (ForeignId(0, known=True), False),
        (NoCatalogue(), False),
    ],
)
@timeless
async def test_a_first_turn_may_belong_elsewhere(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Explanation | Exception,
    elsewhere: bool,
) -> None:
    async def explains(*_: object) -> Explanation:
        if isinstance(answer, Exception):
            raise answer
        return answer

    turns = made(tmp_path)
    monkeypatch.setattr(turns.twin, "explain", explains)
    ask = turns.life().ask(1, "d", 0)
    assert await turns.leases.belong_elsewhere(ask, A) is elsewhere


@pytest.mark.parametrize("away", [False, True])
@timeless
async def test_an_open_socket_holds_no_lease(tmp_path: Path, away: bool) -> None:
    turns = made(tmp_path)
    life = turns.life(Hints())
    turns.twin.away = away
    await turns.leases.release_upgrade(life)
    assert turns.twin.abandoned == ([] if away else [life.record.id])


@timeless
async def test_a_decision_made_here_names_its_cause(tmp_path: Path) -> None:
    turns = made(tmp_path)
    await turns.world.catalogue.refresh()
    life = turns.life(Hints())
    life.elsewhere("lives_elsewhere")
    turns.twin.away = True
    await turns.leases.pin(life, A)
    assert turns.world.decisions[0]["cause"] == "lives_elsewhere"
