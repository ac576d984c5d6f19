"""Request smuggling: for each answered request, whatever its form, the upstream gets
exactly one well-formed request, and no request that was hidden in another."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from itertools import product

from tests.attack import tokens
from tests.attack.scene import Attack, Scene
from tests.support.clients.raw import Caller, calling, post

PATIENCE_S = 60.0  # the gateway closes silent connections much sooner
AT_ONCE = 48
HIDDEN = post(b"", b"x-evil: 1", path=b"/v1/evil")
CHUNK = b"2\r\n{}\r\n0\r\n\r\n"
TE = b"transfer-encoding: chunked"

# Header lines about the body that two servers may read differently.
CODINGS = (
    TE,
    b"Transfer-Encoding: CHUNKED",
    b"transfer-encoding : chunked",
    b"transfer-encoding\t: chunked",
    b" transfer-encoding: chunked",
    b"transfer-encoding:\tchunked",
    b"transfer-encoding:\x0bchunked",
    b"transfer-encoding: chunked\x0c",
    b"transfer-encoding: chunked, identity",
    b"transfer-encoding: identity, chunked",
    b"transfer-encoding: identity",
    b"transfer-encoding: gzip, chunked",
    b"transfer-encoding: chunked\r\ntransfer-encoding: identity",
    b"transfer-encoding: identity\r\ntransfer-encoding: chunked",
    b"transfer-encoding: xchunked",
    b'transfer-encoding: "chunked"',
    b"transfer-encoding: chunked;q=1",
    b"transfer-encoding:\r\n chunked",
    b"x: y\r\n transfer-encoding: chunked",
    b"x: y\ntransfer-encoding: chunked",
    b"x: y\rtransfer-encoding: chunked",
    b"transfer_encoding: chunked",
    b"transfer-encoding: chunk\x00ed",
    b"transfer\x00-encoding: chunked",
    b"\xef\xbb\xbftransfer-encoding: chunked",
    b"connection: transfer-encoding\r\ntransfer-encoding: chunked",
    b"te: chunked",
    b"x-nothing: 1",
)
LENGTHS = (
    b"content-length: 0",
    b"content-length: 2",
    b"content-length: 12",
    b"content-length: %d" % len(CHUNK + HIDDEN),
    b"content-length: 2\r\ncontent-length: 2",
    b"content-length: 2\r\ncontent-length: 12",
    b"content-length: 2, 2",
    b"content-length: +2",
    b"content-length: -2",
    b"content-length: 0x2",
    b"content-length: 2 ",
    b"content-length: 2\x00",
    b"content-length: \x0b2",
    b"content-length: 2_0",
    b"content-length: 02",
    b"content-length: 18446744073709551618",
    b"content-length : 2",
    b" content-length: 2",
    b"content-length:\r\n 2",
    b"x: y\ncontent-length: 2",
    b"content_length: 2",
    b"connection: content-length\r\ncontent-length: 2",
    b"x-nothing: 1",
)
BODIES = (CHUNK + HIDDEN, b"{}" + HIDDEN, b"0\r\n\r\n" + HIDDEN)
# Chunked bodies that two servers may end in different places.
CHUNKS = (
    b"2\r\n{}\r\n0\r\n\r\n",
    b"2;a=b\r\n{}\r\n0\r\n\r\n",
    b"2;a\n{}\r\n0\r\n\r\n",
    b"2;\x00\r\n{}\r\n0\r\n\r\n",
    b"2\n{}\r\n0\r\n\r\n",
    b"2\r{}\r\n0\r\n\r\n",
    b"2\r\n{}0\r\n\r\n",
    b"2\r\n{}xx0\r\n\r\n",
    b"2\r\n{}\n0\r\n\r\n",
    b"02\r\n{}\r\n0\r\n\r\n",
    b"0x2\r\n{}\r\n0\r\n\r\n",
    b"+2\r\n{}\r\n0\r\n\r\n",
    b"-2\r\n{}\r\n0\r\n\r\n",
    b" 2\r\n{}\r\n0\r\n\r\n",
    b"2 \r\n{}\r\n0\r\n\r\n",
    b"2_0\r\n{}\r\n0\r\n\r\n",
    b"10000000000000002\r\n{}\r\n0\r\n\r\n",
    b"fffffffffffffffe\r\n{}\r\n0\r\n\r\n",
    b"\r\n{}\r\n0\r\n\r\n",
    b"2\r\n{}\r\n\r\n0\r\n\r\n",
    b"2\r\n{}\r\n0\r\n",
    b"2\r\n{}\r\n0\n\n",
    b"2\r\n{}\r\n00\r\n\r\n",
    b"2\r\n{}\r\n0\r\nx-evil: 1\r\n\r\n",
    b"2\r\n{}\r\n0\r\ncontent-length: 99\r\n\r\n",
    b"2\r\n{}\r\n0\r\ntransfer-encoding: x\r\n\r\n",
    b"2\r\n{}\r\n0\r\nx: y\nz: 1\r\n\r\n",
    b"2\r\n{}\r\n0\r\nno colon\r\n\r\n",
)
# Complete heads.
TARGETS = (
    b"POST /v1/responses HTTP/1.1",
    b"POST http://proxy/v1/responses HTTP/1.1",
    b"POST http://evil.example/v1/responses HTTP/1.1",
    b"POST //evil.example/v1/responses HTTP/1.1",
    b"POST http:/v1/responses HTTP/1.1",
    b"POST /v1/responses\tHTTP/1.1",
    b"POST  /v1/responses HTTP/1.1",
    b"POST /v1/responses  HTTP/1.1",
    b"POST /v1/responses HTTP/1.1 ",
    b"POST /v1/responses HTTP/1.1\r",
    b"POST /v1/responses HTTP/1.0",
    b"POST /v1/responses HTTP/1.10",
    b"POST /v1/responses HTTP/01.1",
    b"POST /v1/responses http/1.1",
    b"POST /v1/responses",
    b"POST /v1/responses HTTP/1.1 x",
    b"POST /v1/responses HTTP/1.1\r\n/v1/evil HTTP/1.1",
    b"POST /v1/responses?a=\x00 HTTP/1.1",
    b"POST /v1/responses?a=\x7f HTTP/1.1",
    b"POST /v1/responses#/v1/evil HTTP/1.1",
    b"POST /v1/x/../evil HTTP/1.1",
    b"POST /v1/x/%2e%2e/evil HTTP/1.1",
    b"POST /v1/%0d%0ax-evil:1 HTTP/1.1",
    b"POST /v1/responses?%0d%0ax-evil: HTTP/1.1",
    b"\r\nPOST /v1/responses HTTP/1.1",
    b"\r\n\r\nPOST /v1/responses HTTP/1.1",
    b"\nPOST /v1/responses HTTP/1.1",
    b"\x00POST /v1/responses HTTP/1.1",
    b"POST\x00 /v1/responses HTTP/1.1",
    b"post /v1/responses HTTP/1.1",
    b"CONNECT proxy:80 HTTP/1.1",
    b"TRACE /v1/responses HTTP/1.1",
    b"GET /v1/models HTTP/1.1",
    b"HEAD /v1/models HTTP/1.1",
    b"DELETE /v1/responses/x HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"PRI * HTTP/2.0",
)
EXTRAS = (
    b"x-nothing: 1",
    b"expect: 100-continue",
    b"expect: 200-ok",
    b"connection: close",
    b"connection: keep-alive, x-token",
    b"connection: authorization, host, content-length, x-session-id",
    b"connection: upgrade\r\nupgrade: h2c",
    b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk",
    b"connection: upgrade\r\nupgrade: websocket",
    b"connection: upgrade\r\nupgrade: websocket, h2c",
    b"connection: upgrade\r\nupgrade: TLS/1.0",
    b"host: evil.example",
    b"host:",
    b"x-forwarded-host: evil.example\r\nx-original-url: /admin/keys",
    b"x-http-method-override: DELETE",
    b"content-encoding: chunked",
    b"content-encoding: gzip",
    b"trailer: content-length",
    b"x: y\r\n folded: 1",
    b"x: y\r\n\tx-evil: 1",
    b"x: y\nx-evil: 1",
    b"x: y\rx-evil: 1",
    b"x: y\x00x-evil: 1",
    b"x\r: y",
    b"x y: z",
    b": nameless",
    b"x",
    b"x-\xff: y",
    b"x(: y",
    b"x: " + b"y" * 5_000,
)


def attempts(scene: Scene) -> Iterator[tuple[str, bytes, bytes]]:
    """Kind, token and bytes of each attempt; `scene`'s key authenticates them."""
    start = b"POST /v1/responses HTTP/1.1"
    for coding, length, body in product(CODINGS, LENGTHS, BODIES):
        yield _made(scene, "CL.TE, TE.CL, TE.TE", start, (coding, length), body)
        yield _made(scene, "CL.TE, TE.CL, TE.TE", start, (length, coding), body)
    for chunks, place in product(CHUNKS, (b"", b"x-a: b\r\n")):
        lines = (place + TE,)
        yield _made(scene, "chunk tricks", start, lines, chunks + HIDDEN)
    for target, extra in product(TARGETS, EXTRAS):
        headers = (extra, b"content-length: 2")
        kind = "odd request lines and headers, Upgrade, Expect"
        yield _made(scene, kind, target, headers, b"{}" + HIDDEN)
    for extra, length in product(EXTRAS, LENGTHS):
        kind = "odd headers and lengths"
        yield _made(scene, kind, start, (extra, length), b"{}" + HIDDEN)


def _made(
    scene: Scene, kind: str, start: bytes, headers: tuple[bytes, ...], body: bytes
) -> tuple[str, bytes, bytes]:
    token = tokens.new_token()
    lines = (start, b"host: proxy", scene.key, b"x-token: " + token, *headers)
    return kind, token, b"\r\n".join([*lines, b"", body])


async def smuggle(scene: Scene, every: int = 1) -> list[Attack]:
    """Run the attack; of `every` attempts, one is run."""
    attacks: dict[str, Attack] = {}
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(kind: str, token: bytes, data: bytes) -> None:
        attack = attacks.setdefault(kind, Attack(f"smuggling: {kind}"))
        attack.tries += 1
        async with turn:
            heard = await _heard(scene, data)
        _judge(attack, token, data, heard)
        _compare(scene, attack, token, data, heard)

    async with asyncio.TaskGroup() as group:
        for number, attempt in enumerate(attempts(scene)):
            if number % every == 0:
                group.create_task(one(*attempt))
    await scene.rests()
    done = list(attacks.values())
    scene.judged(done[0])
    return done


async def _heard(scene: Scene, data: bytes) -> bytes:
    """All answers until the gateway closes or waits for more."""
    heard = b""
    async with calling(scene.stack.origin) as caller:
        with suppress(ConnectionError):
            await caller.send(data)
            async with asyncio.timeout(PATIENCE_S):
                while data := await _more(caller):
                    heard += data
    return heard


async def _more(caller: Caller) -> bytes:
    return await caller.reader.read(65_536)


def _judge(attack: Attack, token: bytes, data: bytes, heard: bytes) -> None:
    starts = [line for line in heard.split(b"\r\n") if line[:7] == b"HTTP/1."]
    statuses = [line[9:12] for line in starts if line[9:12] != b"100"]
    if tokens.foreign(heard, {token}):
        attack.breach(f"foreign answer to {data!r}: {heard[:200]!r}")
    failed = (s >= b"500" and s not in (b"501", b"505") for s in statuses)
    # There is no router that could look up the owner of an id in a path.
    if any(failed) and b'"not_ready"' not in heard:
        attack.breach(f"{statuses} to {data!r}: {heard[:300]!r}")
    attack.ends[statuses[0].decode() if statuses else "no answer"] += 1


def _compare(
    scene: Scene, attack: Attack, token: bytes, data: bytes, heard: bytes
) -> None:
    """For this token the upstream must have received at most one request: the first
    one, as the client framed it. The hidden request carries no key, so the gateway
    refuses it if it reads it as the next request."""
    got = [seen for seen in scene.upstream.seen if seen.token == token]
    if len(got) > 1:
        attack.breach(f"{len(got)} requests of {data!r}")
    answered = heard.count(b"x-token: " + token)
    if len(got) != answered and b"HEAD" not in data:
        attack.breach(f"{len(got)} upstream, {answered} answered: {data!r} {heard!r}")
