"""A socket from the client's upgrade to its end: accepted after the upstream's, refused
with the upstream's answer, drained between two requests."""

import asyncio
from pathlib import Path

import pytest

from libs.common.headers import Header
from libs.common.proxy_keys import Principal
from libs.common.routing.types import NoCapacity
from services.gateway.server.request import Request
from services.gateway.websocket.handler import client_may_upgrade
from tests.support.clients.websocket_peer import Peer
from tests.support.memory.clock import clock, settled, timeless
from tests.support.memory.plane import SECRET, World
from tests.support.memory.socket_talk import Sockets
from tests.support.memory.twin import Twin, resource

KEY: Header = (b"authorization", b"Bearer " + SECRET.encode())
DONE = {
    "type": "response.completed",
    "response": {"id": "resp_1", "object": "response"},
}


def three(root: Path) -> World:
    return World(root, Twin(resource("a"), resource("b"), resource("c")))


@pytest.mark.parametrize(
    ("method", "path", "may"),
    [
        ("GET", b"/v1/responses", True),
        ("GET", b"/v1/responses?x", True),
        ("POST", b"/v1/responses", False),
        ("GET", b"/v1/realtime", False),
    ],
)
def test_only_responses_has_sockets(method: str, path: bytes, may: bool) -> None:
    assert client_may_upgrade(Request(method, path, [])) is may


@timeless
async def test_a_client_is_accepted_when_its_upstream_is(tmp_path: Path) -> None:
    world = three(tmp_path)
    sockets = Sockets(world)
    talk = await sockets.asks()
    assert talk.wire.sent == b""
    sockets.upstream().accepts()
    await settled()
    talk.hears()
    assert talk.peer.answer is not None
    assert talk.peer.answer.status_code == 101
    record = world.twin.abandoned
    assert len(record) == 1  # an open socket alone holds no lease
    await talk.closes()
    await talk.ended()
    assert world.requests == []


@timeless
async def test_another_path_has_no_socket(tmp_path: Path) -> None:
    world = three(tmp_path)
    request = Peer().request()
    request.path = b"/v1/realtime"
    talk = await Sockets(world).asks(request=request)
    assert talk.refusal == (426, "websocket_unavailable")


@timeless
async def test_what_is_no_upgrade_of_rfc_6455_is_refused(tmp_path: Path) -> None:
    world = three(tmp_path)
    request = Request("GET", b"/v1/responses", [(b"upgrade", b"websocket")])
    talk = await Sockets(world).asks(request=request)
    assert talk.refusal == (400, "bad_request")
    assert talk.wire.closed


@timeless
async def test_an_unknown_key_has_no_socket(tmp_path: Path) -> None:
    world = three(tmp_path)
    talk = await Sockets(world).asks(KEY)
    while not talk.wire.sent:
        clock().advance(0.1)
        await settled()
    assert talk.refusal == (401, "invalid_proxy_key")
    assert b"www-authenticate: Bearer\r\n" in talk.wire.sent
    assert world.upstreams == []


@timeless
async def test_a_key_may_not_leave_its_pools(tmp_path: Path) -> None:
    world = three(tmp_path)
    world.table.put(Principal(id="k", pools=("other",)))
    talk = await Sockets(world).asks(KEY, (b"x-proxy-pool-id", b"pool"))
    while not talk.wire.sent:
        clock().advance(0.1)
        await settled()
    assert talk.refusal == (403, "pool_not_allowed")
    (row,) = world.requests
    assert (row["outcome"], row["status_code"], row["method"]) == ("failed", 403, "WS")


@timeless
async def test_an_upstreams_refusal_is_passed_on_and_in_the_books(
    tmp_path: Path,
) -> None:
    world = three(tmp_path)
    sockets = Sockets(world)
    talk = await sockets.asks()
    sockets.upstream().refuses(
        400, b'{"error":{"code":"odd"}}', x_mine="y", set_cookie="a=b"
    )
    await settled()
    assert talk.refusal == (400, "odd")
    assert b"x-mine: y\r\n" in talk.wire.sent
    assert b"x-proxy-attempts: 1\r\n" in talk.wire.sent
    assert b"set-cookie" not in talk.wire.sent
    (row,) = world.requests
    assert (row["status_code"], row["error_code"], row["outcome"]) == (
        400,
        "odd",
        "failed",
    )


@timeless
async def test_a_429_that_is_passed_on_says_when_to_come_again(tmp_path: Path) -> None:
    world = three(tmp_path)
    sockets = Sockets(world)
    talk = await sockets.asks()
    for number in range(3):
        sockets.upstream(number).refuses(429, b'{"error":{"code":null}}')
        await settled()
    assert talk.refusal == (429, None)
    assert b"retry-after: 30\r\n" in talk.wire.sent


@timeless
async def test_without_capacity_there_is_no_socket(tmp_path: Path) -> None:
    world = three(tmp_path)
    world.twin.says.append(NoCapacity(1500))
    talk = await Sockets(world).asks()
    assert talk.refusal == (503, "no_capacity")
    assert world.requests[0]["error_code"] == "no_capacity"
    assert world.plane.active == {}


@timeless
async def test_a_fault_of_ours_is_said_and_in_the_books(tmp_path: Path) -> None:
    world = three(tmp_path)
    world.twin.says.append(RuntimeError("ours"))
    talk = await Sockets(world).asks()
    assert talk.refusal == (500, "internal_error")
    assert world.requests[0]["status_code"] == 500


@timeless
async def test_a_client_that_leaves_before_its_socket_is_open(tmp_path: Path) -> None:
    world = three(tmp_path)
    sockets = Sockets(world)
    talk = await sockets.asks()
    talk.wire.hangs_up()
    await settled()
    assert talk.task.done()
    (row,) = world.requests
    assert row["outcome"] == "cancelled"
    assert world.plane.active == {}


@timeless
async def test_a_task_that_others_cancel_is_cancelled(tmp_path: Path) -> None:
    world = three(tmp_path)
    talk = await Sockets(world).asks()
    talk.task.cancel()
    await settled()
    assert talk.task.cancelled()
    assert world.plane.active == {}


@timeless
async def test_an_open_socket_names_the_account_of_its_key(tmp_path: Path) -> None:
    world = World(tmp_path, Twin(resource("a", account_id="a")))
    talk = await Sockets(world).opened(openai_organization="org-1")
    await settled()
    assert world.twin.named == [("a", "org-1")]
    await talk.closes()
    await talk.ended()


@timeless
async def test_while_redis_is_away_a_socket_opens_all_the_same(tmp_path: Path) -> None:
    world = three(tmp_path)
    await world.directory.refresh()
    world.twin.away = True
    talk = await Sockets(world).opened()
    assert talk.peer.answer is not None
    assert talk.peer.answer.status_code == 101
    await talk.closes()
    await talk.ended()


# Draining ----------------------------------------------------------------------


@timeless
async def test_an_idle_socket_is_closed_at_once_when_we_drain(tmp_path: Path) -> None:
    world = three(tmp_path)
    sockets = Sockets(world)
    talk = await sockets.opened()
    draining = asyncio.create_task(sockets.plane.drain(10.0))
    await settled()
    talk.hears()
    assert talk.close_code == 1012
    talk.wire.feed(talk.peer.sends())
    await draining
    await talk.ended()
    late = await sockets.asks()
    assert late.refusal == (503, "gateway_restarts")


@timeless
async def test_a_busy_socket_ends_between_two_requests(tmp_path: Path) -> None:
    world = three(tmp_path)
    sockets = Sockets(world)
    talk = await sockets.opened()
    await talk.creates(model="m")
    draining = asyncio.create_task(sockets.plane.drain(10.0))
    await settled()
    assert talk.hears() == []
    sockets.upstream().says(DONE)
    await settled()
    assert talk.hears() == [DONE]
    assert talk.close_code == 1012
    await draining
    assert world.requests[0]["outcome"] == "completed"


@timeless
async def test_a_request_that_takes_too_long_is_interrupted_and_told(
    tmp_path: Path,
) -> None:
    world = three(tmp_path)
    sockets = Sockets(world)
    talk = await sockets.opened()
    await talk.creates(model="m")
    began = clock().time()
    await sockets.plane.drain(10.0)
    assert 10.0 <= clock().time() - began < 20.0
    (told,) = talk.hears()
    assert (told["type"], told["error"]["code"]) == ("error", "gateway_restarts")
    assert talk.close_code == 1012
    assert world.requests[0]["outcome"] == "interrupted"


@timeless
async def test_a_socket_that_opens_while_we_drain_is_closed(tmp_path: Path) -> None:
    world = three(tmp_path)
    sockets = Sockets(world)
    talk = await sockets.asks()
    await sockets.plane.drain(0.0)
    sockets.upstream().accepts()
    await talk.ended()
    talk.hears()
    assert talk.close_code == 1012
