"""An ASGI application over a client's connection."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from services.gateway.admin.asgi import STALL_S, ControlPlane
from services.gateway.server.connection import Connection
from services.gateway.server.request import Request
from tests.support.memory.clock import settled, timeless
from tests.support.memory.sites import OpenSite
from tests.support.memory.transports import Wire

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]


class Talk(OpenSite):
    """A client of an application."""

    def __init__(self, app: App) -> None:
        super().__init__()
        self.plane = ControlPlane(app)
        self.connection = Connection(self, asyncio.get_running_loop())
        self.wire = Wire(self.connection)

    def serve(
        self, request: Request, connection: Connection
    ) -> Coroutine[Any, Any, None]:
        return self.plane.serve(request, connection)

    async def asks(self, sent: bytes) -> bytes:
        self.wire.feed(sent)
        await settled()
        return self.wire.sent


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {
        "type": "http.response.start", "status": status, "headers": list(headers),
    }  # fmt: skip


def body(data: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def saying(*messages: dict[str, Any]) -> App:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


@timeless
async def test_an_application_sees_the_request() -> None:
    seen: list[Any] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        seen.append(scope)
        seen.append(await receive())
        await send(start(201, (b"x", b"y")))
        await send(body(b"made"))

    sent = await Talk(app).asks(
        b"POST /a%20b/%FF?q=%20 HTTP/1.1\r\nHost: x\r\ncontent-length: 2\r\n\r\nhi"
    )
    scope, message = seen
    assert (scope["type"], scope["method"], scope["path"]) == (
        "http",
        "POST",
        "/a b/\ufffd",
    )
    assert scope["client"] is None  # a transport without an address
    assert (scope["raw_path"], scope["query_string"]) == (b"/a%20b/%FF", b"q=%20")
    assert scope["headers"] == [(b"host", b"x"), (b"content-length", b"2")]
    assert message == {"type": "http.request", "body": b"hi", "more_body": False}
    assert sent == b"HTTP/1.1 201 Created\r\nx: y\r\ncontent-length: 4\r\n\r\nmade"


@pytest.mark.parametrize(
    ("messages", "sent"),
    [
        pytest.param(
            [start(), body(b"ab", more=True), body(b"", more=True), body(b"c")],
            b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            id="a stream",
        ),
        pytest.param(
            [start(), body(b"ab", more=True), body()], b"2\r\nab\r\n0\r\n\r\n",
            id="with an empty end",
        ),
        pytest.param([start(), {"type": "odd"}, body(b"ab")], b"ab", id="odd messages"),
        pytest.param(
            [start(), {"type": "http.response.body"}], b"", id="without a body"
        ),
    ],
)  # fmt: skip
@timeless
async def test_an_answer_is_framed(messages: list[dict[str, Any]], sent: bytes) -> None:
    talk = Talk(saying(*messages))
    head, _, got = (await talk.asks(GET)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert got == sent
    assert talk.connection.idle


async def broken(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    raise RuntimeError("ours")


@timeless
async def test_a_fault_of_the_application_is_an_answer() -> None:
    sent = await Talk(broken).asks(GET)
    assert sent.startswith(b"HTTP/1.1 500 ")
    assert b'"code":"internal_error"' in sent


@timeless
async def test_a_fault_within_an_answer_breaks_it() -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"ab", more=True))
        raise RuntimeError("ours")

    talk = Talk(app)
    await talk.asks(GET)
    assert talk.wire.aborted
    assert b"internal_error" not in talk.wire.sent


@timeless
async def test_a_second_receive_waits_until_the_client_leaves() -> None:
    ended: list[str] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        try:
            await receive()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    talk = Talk(app)
    await talk.asks(GET)
    task = talk.connection.task
    assert (ended, task is None) == ([], False)
    talk.wire.hangs_up()
    await settled()
    assert ended == ["cancelled"]


@timeless
async def test_a_task_that_others_cancel_is_cancelled() -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await receive()

    talk = Talk(app)
    await talk.asks(GET)
    task = talk.connection.task
    assert task is not None
    task.cancel()
    await settled()
    assert task.cancelled()
    assert talk.wire.aborted


@timeless
async def test_a_client_that_does_not_read_is_not_waited_for_for_ever() -> None:
    talk = Talk(saying(start(), body(b"ab", more=True), body(b"cd")))
    talk.connection.pause_writing()
    await talk.asks(GET)
    assert not talk.wire.aborted
    await asyncio.sleep(STALL_S)
    await settled()
    assert talk.wire.aborted


@timeless
async def test_the_length_for_head_is_the_applications() -> None:
    app = saying(start(200, (b"content-length", b"7")), body())
    sent = await Talk(app).asks(GET.replace(b"GET", b"HEAD", 1))
    assert sent.endswith(b"\r\n\r\n")
    assert sent.count(b"content-length: 7\r\n") == 1
