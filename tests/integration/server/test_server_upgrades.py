"""Requests with an Upgrade header (RFC 9110 section 7.8): a WebSocket where one is
served, otherwise an ordinary request with its body."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.clients import raw
from tests.support.clients.raw import calling, get, post
from tests.support.processes.stack import Stack

pytest_plugins = ["tests.support.processes.standing"]
pytestmark = pytest.mark.asyncio(loop_scope="module")
ASK = b'{"model":"gpt-5.5","input":"hi"}'
CONNECTION = b"connection: Upgrade, HTTP2-Settings"
WEBSOCKET = (
    b"connection: Upgrade",
    b"upgrade: websocket",
    b"sec-websocket-version: 13",
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
)
IGNORED = {
    "h2c": (CONNECTION, b"upgrade: h2c"),
    "H2C": (CONNECTION, b"Upgrade: H2C"),
    "a list": (CONNECTION, b"upgrade: h2c, websocket"),
    "two headers": (CONNECTION, b"upgrade: websocket", b"upgrade: h2c"),
    "TLS": (CONNECTION, b"upgrade: TLS/1.0"),
    "an empty one": (CONNECTION, b"upgrade: "),
    "without Connection": (b"upgrade: h2c",),
    "websocket without Connection": WEBSOCKET[1:],
    "websocket that is no GET": WEBSOCKET,
    "WebSocket that is no GET": (CONNECTION, b"upgrade: WebSocket"),
}
BODIES = {"sized": post(ASK), "large": post(ASK[:-1] + b" " * 200_000 + b"}")}
BODIES["chunked"] = (
    post(b"", b"transfer-encoding: chunked").replace(b"content-length: 0\r\n", b"")
    + raw.chunk(ASK[:9])
    + raw.chunk(ASK[9:])
    + b"0\r\n\r\n"
)


@pytest_asyncio.fixture(loop_scope="module")
async def stack(standing: Stack) -> AsyncIterator[Stack]:
    async with raw.unharmed(standing):
        yield standing


def with_lines(request: bytes, lines: tuple[bytes, ...]) -> bytes:
    first, rest = request.split(b"\r\n", 1)
    return b"\r\n".join([first, *lines, rest])


@pytest.mark.parametrize("request_", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("lines", IGNORED.values(), ids=IGNORED)
async def test_a_body_with_an_ignored_upgrade_is_forwarded_whole(
    stack: Stack, lines: tuple[bytes, ...], request_: bytes
) -> None:
    """The requests after it are served on the same connection."""
    async with calling(stack.origin) as caller:
        asked = with_lines(request_, lines)
        await caller.send(asked + get(b"/healthz") + asked + get(b"/healthz"))
        for _ in range(2):
            answer = await caller.reply()
            assert (answer.status, b'"completed"' in answer.body) == (200, True)
            assert "connection" not in answer.headers
            assert (await caller.reply()).body == b'{"status": "ok"}'
    assert not [h for e in stack.journal() for h in e["headers"] if h[0] == "upgrade"]


async def test_however_it_is_cut(stack: Stack) -> None:
    asked = with_lines(BODIES["chunked"], IGNORED["h2c"])
    async with calling(stack.origin) as caller:
        for at in range(0, len(asked), 7):
            await caller.send(asked[at : at + 7])
        assert (await caller.reply()).status == 200


async def test_expect_is_answered_once(stack: Stack) -> None:
    asked = with_lines(post(ASK), (*IGNORED["h2c"], b"expect: 100-continue"))
    async with calling(stack.origin) as caller:
        await caller.send(asked[: -len(ASK)])
        assert (await caller.reply()).status == 100
        await caller.send(ASK)
        assert (await caller.reply()).status == 200


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ((b"x-large: " + b"x" * 66_000,), "headers_too_large"),
        ((b"x-a: b",) * 128, "headers_too_large"),
        ((b"content-length: 99999999",), "body_too_large"),
        ((b"transfer-encoding: gzip, chunked",), "bad_request"),
    ],
    ids=["a large head", "many headers", "a large body", "an unknown coding"],
)
async def test_limits_hold_with_an_upgrade(
    stack: Stack, lines: tuple[bytes, ...], code: str
) -> None:
    async with calling(stack.origin) as caller:
        await caller.send(get(b"/v1/models", *IGNORED["h2c"], *lines))
        answer = await caller.reply()
        assert (answer.code, answer.headers["connection"]) == (code, "close")
        assert await caller.closed() == b""


async def test_a_websocket_upgrade_with_a_body_is_an_ordinary_request(
    stack: Stack,
) -> None:
    """Its body would be read as frames. RFC 6455 allows none; the upstream answers it
    like a GET."""
    async with calling(stack.origin) as caller:
        head = get(b"/v1/responses", *WEBSOCKET, b"content-length: 5")
        await caller.send(head + b"hello" + get(b"/healthz"))
        answer = await caller.reply()
        assert (answer.status, "x-proxy-resource-id" in answer.headers) == (400, True)
        assert (await caller.reply()).status == 200


async def test_http_1_0_opens_no_socket(stack: Stack) -> None:
    async with calling(stack.origin) as caller:
        asked = get(b"/v1/responses", *WEBSOCKET).replace(b"HTTP/1.1", b"HTTP/1.0")
        await caller.send(asked)
        assert (await caller.reply()).status in (404, 405)


@pytest.mark.parametrize("path", [b"/v1/models", b"/v1/responses/resp_1", b"/healthz"])
async def test_a_websocket_elsewhere_is_426(stack: Stack, path: bytes) -> None:
    async with calling(stack.origin) as caller:
        await caller.send(get(path, *WEBSOCKET))
        assert (await caller.reply()).code == "websocket_unavailable"


@pytest.mark.parametrize("lines", [(), WEBSOCKET, IGNORED["h2c"]])
async def test_connect_opens_no_tunnel_whatever_it_says(
    stack: Stack, lines: tuple[bytes, ...]
) -> None:
    """What follows is not read as requests: its sender believes that it talks to
    another host."""
    async with calling(stack.origin) as caller:
        head = get(b"api.openai.com:443", *lines).replace(b"GET", b"CONNECT")
        await caller.send(head + get(b"/healthz"))
        answer = await caller.reply()
        assert (answer.code, answer.headers["connection"]) == ("unknown_route", "close")
        assert await caller.closed() == b""
