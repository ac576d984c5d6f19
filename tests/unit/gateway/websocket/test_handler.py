"""Serves upgrade requests: opening, refusals and draining of sockets."""

import asyncio
from pathlib import Path

import pytest

from libs.common.headers import Header
from libs.common.proxy_keys import Principal
from libs.common.routing.types import Decision, NoCapacity
from services.gateway import errors
from services.gateway.server.request import Request
from services.gateway.websocket import handler
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
def test_only_get_responses_may_upgrade(method: str, path: bytes, may: bool) -> None:
    assert client_may_upgrade(Request(method, path, [])) is may


@timeless
async def test_a_client_is_accepted_once_the_upstreams_socket_is_open(
    tmp_path: Path,
) -> None:
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
    assert len(record) == 1  # an open socket holds no lease
    await talk.closes()
    await talk.ended()
    assert world.requests == []


@timeless
async def test_another_path_is_answered_with_426(tmp_path: Path) -> None:
    world = three(tmp_path)
    request = Peer().request()
    request.path = b"/v1/realtime"
    talk = await Sockets(world).asks(request=request)
    assert talk.refusal == (426, "websocket_unavailable")


@timeless
async def test_an_invalid_upgrade_is_answered_with_400(tmp_path: Path) -> None:
    world = three(tmp_path)
    request = Request("GET", b"/v1/responses", [(b"upgrade", b"websocket")])
    talk = await Sockets(world).asks(request=request)
    assert talk.refusal == (400, "bad_request")
    assert talk.wire.closed


@timeless
async def test_a_request_with_a_problem_is_answered_with_it(tmp_path: Path) -> None:
    world = three(tmp_path)
    request = Peer().request()
    request.problem = errors.bad_host()
    talk = await Sockets(world).asks(request=request)
    assert talk.refusal == (errors.bad_host().status, "bad_request")
    assert world.requests == []
    assert world.upstreams == []


@timeless
async def test_an_unknown_key_is_answered_with_401(tmp_path: Path) -> None:
    world = three(tmp_path)
    talk = await Sockets(world).asks(KEY)
    while not talk.wire.sent:
        clock().advance(0.1)
        await settled()
    assert talk.refusal == (401, "invalid_proxy_key")
    assert b"www-authenticate: Bearer\r\n" in talk.wire.sent
    assert world.upstreams == []


@timeless
async def test_a_pool_outside_those_of_the_key_is_answered_with_403(
    tmp_path: Path,
) -> None:
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
async def test_an_upstreams_refusal_is_forwarded_and_recorded(
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
async def test_a_forwarded_429_has_a_retry_after(tmp_path: Path) -> None:
    world = three(tmp_path)
    sockets = Sockets(world)
    talk = await sockets.asks()
    for number in range(3):
        sockets.upstream(number).refuses(429, b'{"error":{"code":null}}')
        await settled()
    assert talk.refusal == (429, None)
    assert b"retry-after: 30\r\n" in talk.wire.sent


@timeless
async def test_without_capacity_an_upgrade_is_answered_with_503(tmp_path: Path) -> None:
    world = three(tmp_path)
    world.twin.says.append(NoCapacity(1500))
    talk = await Sockets(world).asks()
    assert talk.refusal == (503, "no_capacity")
    assert world.requests[0]["error_code"] == "no_capacity"
    assert world.in_flight.active == {}


@timeless
async def test_an_internal_error_is_answered_with_500_and_recorded(
    tmp_path: Path,
) -> None:
    world = three(tmp_path)
    world.twin.says.append(RuntimeError("ours"))
    talk = await Sockets(world).asks()
    assert talk.refusal == (500, "internal_error")
    assert world.requests[0]["status_code"] == 500


@timeless
async def test_a_client_that_disconnects_during_the_upgrade_is_recorded(
    tmp_path: Path,
) -> None:
    world = three(tmp_path)
    sockets = Sockets(world)
    talk = await sockets.asks()
    talk.wire.hangs_up()
    await settled()
    assert talk.task.done()
    (row,) = world.requests
    assert row["outcome"] == "cancelled"
    assert world.in_flight.active == {}


@timeless
async def test_cancellation_of_the_task_is_not_swallowed(tmp_path: Path) -> None:
    world = three(tmp_path)
    talk = await Sockets(world).asks()
    talk.task.cancel()
    await settled()
    assert talk.task.cancelled()
    assert world.in_flight.active == {}


@timeless
async def test_an_accepted_upgrade_names_the_account_of_the_key(tmp_path: Path) -> None:
    world = World(tmp_path, Twin(resource("a", account_id="a")))
    talk = await Sockets(world).opened(openai_organization="org-1")
    await settled()
    assert world.twin.named == [("a", "org-1")]
    await talk.closes()
    await talk.ended()


@timeless
async def test_an_upgrade_without_an_organization_names_no_account(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, Twin(resource("a", account_id="a")))
    talk = await Sockets(world).opened()
    await settled()
    assert world.twin.named == []
    await talk.closes()
    await talk.ended()


@timeless
async def test_an_accepted_trial_reports_the_resource_as_working(
    tmp_path: Path,
) -> None:
    world = three(tmp_path)
    world.twin.says.append(
        Decision("a", "weighted_least_connections", "v3", trial=True)
    )
    talk = await Sockets(world).opened()
    (release,) = world.twin.released
    assert release.verdict is not None
    assert release.verdict.kind == "ok"
    await talk.closes()
    await talk.ended()


@timeless
async def test_an_unexpected_failure_aborts_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = three(tmp_path)

    class Failing:
        def __init__(self, *_: object) -> None: ...

        async def run(self) -> None:
            raise RuntimeError("unexpected")

    monkeypatch.setattr(handler, "SocketRelay", Failing)
    sockets = Sockets(world)
    talk = await sockets.asks()
    sockets.upstream().accepts()
    await talk.ended()
    assert talk.wire.aborted
    assert sockets.upstream().close_code == 1000


@timeless
async def test_a_socket_opens_without_redis(tmp_path: Path) -> None:
    world = three(tmp_path)
    await world.catalogue.refresh()
    world.twin.away = True
    talk = await Sockets(world).opened()
    assert talk.peer.answer is not None
    assert talk.peer.answer.status_code == 101
    await talk.closes()
    await talk.ended()


# Draining ----------------------------------------------------------------------


@timeless
async def test_draining_closes_an_idle_socket_at_once(tmp_path: Path) -> None:
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
async def test_draining_closes_a_busy_socket_between_two_requests(
    tmp_path: Path,
) -> None:
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
async def test_a_request_that_arrives_as_draining_begins_is_not_taken(
    tmp_path: Path,
) -> None:
    world = three(tmp_path)
    sockets = Sockets(world)
    talk = await sockets.opened()
    talk.peer.protocol.send_text(b'{"type": "response.create", "model": "m"}')
    talk.wire.feed(talk.peer.sends())
    draining = asyncio.create_task(sockets.plane.drain(10.0))
    for relay in sockets.plane._relays:
        relay.drain()  # before the relay has seen the message
    await settled()
    assert talk.hears() == []
    assert talk.close_code == 1012
    talk.wire.feed(talk.peer.sends())
    await draining
    assert world.requests == []


@timeless
async def test_draining_interrupts_a_request_that_takes_too_long(
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
async def test_a_socket_that_opens_during_draining_is_closed(tmp_path: Path) -> None:
    world = three(tmp_path)
    sockets = Sockets(world)
    talk = await sockets.asks()
    await sockets.plane.drain(0.0)
    sockets.upstream().accepts()
    await talk.ended()
    talk.hears()
    assert talk.close_code == 1012


@timeless
async def test_draining_waits_for_an_upgrade_in_progress(tmp_path: Path) -> None:
    world = three(tmp_path)
    sockets = Sockets(world)
    talk = await sockets.asks()
    draining = asyncio.create_task(sockets.plane.drain(10.0))
    await settled()
    assert not draining.done()
    sockets.upstream().accepts()
    await draining
    talk.hears()
    assert talk.close_code == 1012
