"""The host a request is meant for: Host headers, and absolute-form targets (RFC 9112
section 3.2)."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.clients import raw
from tests.support.clients.raw import calling
from tests.support.processes.stack import Stack

pytest_plugins = ["tests.support.processes.standing"]
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def stack(standing: Stack) -> AsyncIterator[Stack]:
    async with raw.unharmed(standing):
        yield standing


def asking(target: bytes, *lines: bytes, version: bytes = b"1.1") -> bytes:
    return b"\r\n".join([b"GET %b HTTP/%b" % (target, version), *lines, b"", b""])


async def status(stack: Stack, request: bytes) -> int:
    async with calling(stack.origin) as caller:
        await caller.send(request)
        reply = await caller.reply()
        if reply.status >= 400:
            assert (reply.code, reply.headers["connection"]) == ("bad_request", "close")
            assert await caller.closed() == b""
        return reply.status


REFUSED = {
    "none": (),
    "two": (b"host: a", b"host: b"),
    "the same twice": (b"host: a", b"Host: a"),
    "an empty one": (b"host:",),
    "one behind an empty one": (b"host:", b"host: a"),
    "a list": (b"host: a, b",),
    "a path": (b"host: a/b",),
    "a URL": (b"host: http://a",),
    "a user": (b"host: user@a",),
    "a space": (b"host: a b",),
    "a port that is none": (b"host: a:b",),
    "two ports": (b"host: a:1:2",),
    "an open bracket": (b"host: [::1",),
    "a query": (b"host: a?b",),
    "no ASCII": (b"host: \xff",),
    "a port alone": (b"host: :80",),
}


@pytest.mark.parametrize("path", [b"/v1/models", b"/healthz"])
@pytest.mark.parametrize("lines", REFUSED.values(), ids=REFUSED)
async def test_without_one_valid_host_it_is_400(
    stack: Stack, lines: tuple[bytes, ...], path: bytes
) -> None:
    assert await status(stack, asking(path, *lines)) == 400


TAKEN = (b"a", b"a.", b"A.example:8000", b"127.0.0.1:80", b"[::1]", b"[::1]:80",
         b"under_score", b"a:", b"%41~!", b"\t a \t")  # fmt: skip


@pytest.mark.parametrize("host", TAKEN)
async def test_odd_hosts_that_are_valid_are_taken(stack: Stack, host: bytes) -> None:
    assert await status(stack, asking(b"/healthz", b"host: " + host)) == 200


async def test_http_1_0_may_lack_it(stack: Stack) -> None:
    assert await status(stack, asking(b"/healthz", version=b"1.0")) == 200


async def test_http_1_0_may_not_have_two(stack: Stack) -> None:
    asked = asking(b"/healthz", b"host: a", b"host: b", version=b"1.0")
    assert await status(stack, asked) == 400


async def test_each_request_of_a_connection_needs_one(stack: Stack) -> None:
    async with calling(stack.origin) as caller:
        await caller.send(asking(b"/healthz", b"host: a") + asking(b"/healthz"))
        assert (await caller.reply()).status == 200
        assert (await caller.reply()).status == 400


WHOLE = {
    b"http://elsewhere.example/healthz": 200,
    b"HTTPS://elsewhere.example:8443/healthz": 200,
    b"http://user@elsewhere.example/healthz": 400,
    b"http:///healthz": 400,
    b"http://a:b/healthz": 400,
    b"ftp://elsewhere.example/healthz": 400,
}


@pytest.mark.parametrize("target", WHOLE, ids=bytes.decode)
async def test_a_whole_url_has_to_be_one(stack: Stack, target: bytes) -> None:
    assert await status(stack, asking(target, b"host: a")) == WHOLE[target]


async def test_a_whole_url_still_needs_a_host(stack: Stack) -> None:
    assert await status(stack, asking(b"http://elsewhere.example/healthz")) == 400


async def test_a_fragment_is_no_part_of_a_target(stack: Stack) -> None:
    async with calling(stack.origin) as caller:
        await caller.send(asking(b"/v1/models#/../x", b"host: a"))
        assert (await caller.reply()).code == "unknown_route"
    assert "#" not in "".join(entry["path"] for entry in stack.journal())
