"""Requests that are no HTTP, or not the HTTP of this server; old and rare ones."""

import pytest

from tests.integration.server.bad_input.calls import ASK, CHUNKED, HEAD, SETTINGS, told
from tests.support.clients.raw import calling, get, post
from tests.support.processes.stack import Stack
from tests.support.processes.waiting import eventually

pytest_plugins = ["tests.support.processes.standing"]
pytestmark = pytest.mark.asyncio(loop_scope="module")
GATEWAY = SETTINGS


BAD = {
    "both framings": HEAD
    + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "both framings, turned": HEAD
    + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    "the same length twice": HEAD
    + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc",
    "a list of lengths": HEAD + b"content-length: 3, 3\r\n\r\nabc",
    "a signed length": HEAD + b"content-length: +3\r\n\r\nabc",
    "a negative length": HEAD + b"content-length: -3\r\n\r\nabc",
    "a length without end": HEAD + b"content-length: 99999999999999999999999\r\n\r\n",
    "space before a colon": HEAD + b"content-length : 3\r\n\r\nabc",
    "a coding after chunked": HEAD + b"transfer-encoding: chunked, x\r\n\r\n0\r\n\r\n",
    "a coding hidden by a control": HEAD
    + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "no chunk size": CHUNKED + b"zz\r\n",
    "a negative chunk": CHUNKED + b"-1\r\n",
    "a chunk size with 0x": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk size without end": CHUNKED + b"fffffffffffffffff\r\n",
    "a chunk longer than told": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "a bare LF after a size": CHUNKED + b"3\nabc\r\n0\r\n\r\n",
    "a bare LF in an extension": CHUNKED + b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    "a folded header": HEAD + b"x-a: 1\r\n 2\r\n\r\n",
    "a fold at the start": b"GET /v1/models HTTP/1.1\r\n x-a: 1\r\n\r\n",
    "bare LFs": b"GET /v1/models HTTP/1.1\nhost: a\n\n",
    "a bare LF in a header": HEAD + b"x-a: 1\nx-b: 2\r\n\r\n",
    "a bare CR in a header": HEAD + b"x-a: 1\rx-b: 2\r\n\r\n",
    "NUL in a value": HEAD + b"x-a: 1\x002\r\n\r\n",
    "NUL in a name": HEAD + b"x\x00a: 1\r\n\r\n",
    "no colon": HEAD + b"nonsense\r\n\r\n",
    "NUL in the path": b"GET /v1/\x00 HTTP/1.1\r\n\r\n",
    "no UTF-8 in the path": b"GET /v1/\xff HTTP/1.1\r\n\r\n",
    "no method": b"FOO /v1/models HTTP/1.1\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04",
    "an answer": b"HTTP/1.1 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
async def test_what_is_no_http_is_refused(stack: Stack, data: bytes) -> None:
    assert await told(stack, data) == (400, "bad_request")


UNKNOWN = {
    "HTTP/2 in clear": (b"GET /v1/models HTTP/2.0\r\n\r\n", 505),
    "HTTP/0.9 by name": (b"GET /v1/models HTTP/0.9\r\n\r\n", 505),
    "an unknown coding": (
        HEAD + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    "a coding within chunks": (
        HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    "chunks of HTTP/1.0": (
        b"POST /v1/responses HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        501,
    ),
}


@pytest.mark.parametrize(("data", "status"), UNKNOWN.values(), ids=UNKNOWN)
async def test_what_this_server_does_not_speak_is_said(
    stack: Stack, data: bytes, status: int
) -> None:
    assert await told(stack, data) == (status, "bad_request")


class TestOldAndOdd:
    async def test_http_1_0(self, stack: Stack) -> None:
        async with calling(stack.origin) as caller:
            await caller.send(b"GET /healthz HTTP/1.0\r\n\r\n")
            reply = await caller.reply()
            assert (reply.status, reply.headers["connection"]) == (200, "close")
            assert await caller.closed() == b""

    async def test_http_1_0_that_asks_to_be_kept(self, stack: Stack) -> None:
        async with calling(stack.origin) as caller:
            for _ in range(2):
                await caller.send(
                    b"GET /healthz HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
                )
                reply = await caller.reply()
                assert reply.headers["connection"] == "keep-alive"

    async def test_a_stream_for_http_1_0_ends_with_its_connection(
        self, stack: Stack
    ) -> None:
        body = b'{"model":"gpt-5.5","input":"hi","stream":true}'
        async with calling(stack.origin) as caller:
            await caller.send(post(body).replace(b"HTTP/1.1", b"HTTP/1.0"))
            reply = await caller.reply()
            assert "transfer-encoding" not in reply.headers
            assert b"response.completed" in reply.body

    async def test_http_0_9_gets_no_answer_it_could_take_for_one(
        self, stack: Stack
    ) -> None:
        assert await told(stack, b"GET /v1/models\r\n") == (408, "request_timeout")

    async def test_the_whole_url_as_target(self, stack: Stack) -> None:
        async with calling(stack.origin) as caller:
            await caller.send(get(b"http://elsewhere.example/v1/models"))
            assert (await caller.reply()).status == 200

    async def test_options_of_the_server(self, stack: Stack) -> None:
        async with calling(stack.origin) as caller:
            await caller.send(b"OPTIONS * HTTP/1.1\r\nhost: proxy\r\n\r\n")
            assert (await caller.reply()).code == "unknown_route"

    async def test_connect_opens_no_tunnel(self, stack: Stack) -> None:
        data = b"CONNECT api.openai.com:443 HTTP/1.1\r\nhost: a\r\n\r\nabc"
        assert await told(stack, data) == (404, "unknown_route")

    async def test_an_upgrade_to_h2c_is_an_ordinary_request(self, stack: Stack) -> None:
        async with calling(stack.origin) as caller:
            await caller.send(
                get(
                    b"/healthz",
                    b"connection: upgrade, http2-settings",
                    b"upgrade: h2c",
                    b"http2-settings: AAMAAABkAAQCAAAAAAIAAAAA",
                )
                + get(b"/healthz")
            )
            for _ in range(2):
                reply = await caller.reply()
                assert (reply.status, reply.headers.get("connection")) == (200, None)

    async def test_what_is_no_utf_8_passes_as_it_is(self, stack: Stack) -> None:
        async with calling(stack.origin) as caller:
            await caller.send(post(b'{"input":"\xff"}', b"x-odd: \xff"))
            reply = await caller.reply()
            assert reply.status == 400
            assert "x-proxy-request-id" in reply.headers

    async def test_expect_is_answered_before_the_body(self, stack: Stack) -> None:
        async with calling(stack.origin) as caller:
            data = post(ASK, b"expect: 100-continue")
            await caller.send(data[: -len(ASK)])
            assert (await caller.reply()).status == 100
            await caller.send(ASK)
            assert (await caller.reply()).status == 200

    async def test_expect_is_refused_when_the_body_would_be(self, stack: Stack) -> None:
        data = HEAD + b"expect: 100-continue\r\ncontent-length: 9999999\r\n\r\n"
        assert await told(stack, data) == (413, "body_too_large")


class TestPipelining:
    async def test_a_hundred_at_once_are_answered_in_order(self, stack: Stack) -> None:
        paths = [b"/v1/responses/resp_%d" % number for number in range(100)]
        async with calling(stack.origin) as caller:
            await caller.send(b"".join(get(path) for path in paths))
            for path in paths:
                reply = await caller.reply()
                assert path.split(b"/")[-1] in reply.body

    async def test_what_came_before_nonsense_is_answered(self, stack: Stack) -> None:
        async with calling(stack.origin) as caller:
            await caller.send(get(b"/healthz") * 3 + b"nonsense\r\n\r\n")
            answers = [(await caller.reply()).status for _ in range(4)]
            assert answers == [200, 200, 200, 400]
            assert await caller.closed() == b""

    async def test_a_body_is_not_taken_for_a_request(self, stack: Stack) -> None:
        hidden = get(b"/v1/models")
        async with calling(stack.origin) as caller:
            await caller.send(post(hidden) + get(b"/healthz"))
            assert (await caller.reply()).status == 400
            assert (await caller.reply()).body == b'{"status": "ok"}'
        await eventually(lambda: _paths(stack))

    async def test_an_upgrade_behind_a_request_is_refused(self, stack: Stack) -> None:
        upgrade = get(b"/v1/responses", b"connection: upgrade", b"upgrade: websocket")
        async with calling(stack.origin) as caller:
            await caller.send(post(ASK) + upgrade)
            assert (await caller.reply()).status == 200
            assert (await caller.reply()).code == "bad_request"


async def _paths(stack: Stack) -> bool:
    paths = [entry["path"] for entry in stack.journal()]
    return bool(paths) and paths[-1] == "/v1/responses"
