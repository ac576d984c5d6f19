"""Connecting a socket to an upstream: one resource after the other, and the account of
its first request's state."""

from pathlib import Path
from typing import Any

import pytest

from libs.common.contracts.events import Alias
from libs.common.errors import RedisAway
from libs.common.routing.types import (
    Decision,
    NoCapacity,
    Owner,
    digest,
    session_digest,
)
from services.gateway.upstream.errors import NoFreeConnection, NotSent
from tests.support.memory.clock import settled, timeless
from tests.support.memory.plane import World
from tests.support.memory.socket_talk import Sockets, Talk
from tests.support.memory.twin import Twin, resource

DONE = {
    "type": "response.completed",
    "response": {"id": "resp_9", "object": "response"},
}
WLC = "weighted_least_connections"
AT_A = Decision("a", WLC, "v3")
IN_B = Owner("b", "account-b")


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
async def test_a_refused_upgrade_goes_elsewhere(
    tmp_path: Path, status: int, body: bytes, cause: str, verdict: str
) -> None:
    world = made(tmp_path)
    sockets = Sockets(world)
    talk = await sockets.asks()
    sockets.upstream(0).refuses(status, body)
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
async def test_an_ordinary_refusal_is_the_clients(tmp_path: Path) -> None:
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
async def test_when_nobody_can_be_reached_the_client_is_told(
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
    world.plane.active.clear()


@timeless
async def test_without_more_capacity_the_last_refusal_is_passed_on(
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
async def test_an_upgrade_counts_while_it_is_under_way(tmp_path: Path) -> None:
    world = made(tmp_path)
    sockets = Sockets(world)
    talk = await sockets.asks()
    assert world.fallback.local.leases["a"]
    sockets.upstream().accepts()
    await settled()
    assert not world.fallback.local.leases["a"]
    await talk.closes()
    await talk.ended()


# Moving ------------------------------------------------------------------------


def owned(world: World, kind: str) -> dict[str, Any]:
    """A request whose state is at b."""
    if kind == "id":
        world.twin.local.remember({}, {digest("resp_1"): IN_B})
        return {"previous_response_id": "resp_1"}
    world.twin.local.remember({session_digest("s"): IN_B}, {})
    return {"metadata": {"session_id": "s"}}


@pytest.mark.parametrize("kind", ["id", "session"])
@timeless
async def test_a_first_request_takes_the_socket_to_its_state(
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


async def stays(world: World, sockets: Sockets, talk: Talk) -> None:
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
async def test_where_its_state_cannot_be_had_it_stays(tmp_path: Path, how: str) -> None:
    world, sockets, talk = await joined(tmp_path)
    if how == "cannot be reached":
        world.wires.error = NotSent("no route")
    await talk.creates(model="m", **owned(world, "id"))
    if how == "refuses":
        sockets.upstream(1).refuses(503)
        await settled()
    await stays(world, sockets, talk)


@timeless
async def test_state_that_is_here_moves_nothing(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path)
    world.twin.local.remember({}, {digest("resp_1"): Owner("a", "account-a")})
    await talk.creates(model="m", previous_response_id="resp_1")
    assert len(world.upstreams) == 1
    await stays(world, sockets, talk)


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
async def test_ids_that_nobody_knows_move_nothing(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path)
    # Otherwise Redis was emptied just now, and other gateways may still report.
    world.twin.local.remember({}, {digest("resp_1"): None})
    await talk.creates(model="m", previous_response_id="resp_1")
    await stays(world, sockets, talk)


@pytest.mark.parametrize("error", [NoCapacity(1), RedisAway()])
@timeless
async def test_what_cannot_be_explained_moves_nothing(
    tmp_path: Path, error: Exception
) -> None:
    world, sockets, talk = await joined(tmp_path)
    asked = owned(world, "id")

    async def explain(*_: object) -> None:
        raise error

    world.twin.explain = explain  # type: ignore[assignment, method-assign]
    await talk.creates(model="m", **asked)
    await stays(world, sockets, talk)


@timeless
async def test_a_home_without_capacity_moves_nothing(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path)
    asked = owned(world, "id")
    world.twin.says.append(NoCapacity(1))
    await talk.creates(model="m", **asked)
    await stays(world, sockets, talk)


@timeless
async def test_a_home_that_went_elsewhere_meanwhile_moves_nothing(
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
async def test_an_alias_whose_provider_refuses_sockets_is_told(tmp_path: Path) -> None:
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
    assert "refuses sockets with 404" in told["error"]["message"]
    await talk.closes()
    await talk.ended()
    world.is_at_rest()
