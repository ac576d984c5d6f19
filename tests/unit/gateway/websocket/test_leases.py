"""What sockets ask of routing besides a resource for each turn."""

from pathlib import Path
from typing import cast

import pytest

from libs.common.bodies.hints import Hints
from libs.common.errors import NoCatalogue
from libs.common.routing.functions import RoutingFunctions
from libs.common.routing.types import (
    Asker,
    Explanation,
    ForeignId,
    NoCapacity,
    Owner,
    UnknownIds,
    digest,
)
from services.gateway.proxy.lifecycle import Lifecycle
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
            cast(RoutingFunctions, self.twin), self.world.selector
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


@pytest.mark.parametrize(
    ("answer", "elsewhere"),
    [
        (Explanation("ok", "b", "session_affinity", False, 0, []), True),
        (Explanation("ok", "b", "response_affinity", False, 0, []), True),
        (Explanation("ok", "a", "session_affinity", False, 0, []), False),
        (Explanation("ok", "b", "weighted_least_connections", False, 0, []), False),
        (Explanation("busy", None, "busy", False, 0, []), True),
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


@timeless
async def test_a_first_turn_that_waits_for_any_resource_belongs_to_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def explains(*_: object) -> Explanation:
        return Explanation("busy", None, "busy", False, 0, [])

    turns = made(tmp_path)
    monkeypatch.setattr(turns.twin, "explain", explains)
    ask = turns.life(Hints(model="m")).ask(1, "d", 0)
    assert not await turns.leases.belong_elsewhere(ask, A)


@pytest.mark.parametrize("away", [False, True])
@timeless
async def test_an_open_socket_holds_no_lease(tmp_path: Path, away: bool) -> None:
    turns = made(tmp_path)
    life = turns.life(Hints())
    turns.twin.away = away
    await turns.leases.release_upgrade(life)
    assert turns.twin.abandoned == ([] if away else [life.record.id])
