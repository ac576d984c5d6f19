"""Response splitting and header injection in both directions: no client input becomes a
header line upstream, no upstream output becomes a header line for clients, and no head
contains a control character."""

import asyncio
import json
import re
from collections.abc import Iterator

from tests.attack import tokens
from tests.attack.scene import Attack, Scene
from tests.support.clients.frames import UPGRADE
from tests.support.clients.raw import Caller, calling, get, post

PATIENCE_S = 10.0
STATUS = re.compile(rb"HTTP/1\.1 [1-5][0-9]{2} [\t\x20-\x7e\x80-\xff]*")
LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: ?[\t\x20-\x7e\x80-\xff]*")
INJECTED = b"x-evil: 1"
# Between a value and the header line to inject.
BREAKS = (
    b"\r\n",
    b"\r\n ",
    b"\r\n\t",
    b"\r",
    b"\n",
    b"\n\r",
    b"\r\r\n",
    b"\x00",
    b"\x0b",
    b"\x0c",
    b"\x85",
    b"\xe2\x80\xa8",
    b"\xe5\x98\x8a\xe5\x98\x8d",  # UTF-8 whose low bytes are CR and LF
    b"%0d%0a",
    b"\\r\\n",
    b"\r\n\r\nHTTP/1.1 200 OK\r\n",
)
NAMES = (
    b"x-request-id", b"x-session-id", b"x-proxy-session-id", b"session_id",
    b"x-session-name", b"x-pool-id", b"x-proxy-pool-id", b"user-agent", b"traceparent",
    b"openai-beta", b"x-client-request-id", b"accept", b"content-type",
    b"sec-websocket-protocol", b"origin", b"x-forwarded-for",
)  # fmt: skip
FIELDS = (
    "model", "previous_response_id", "conversation", "prompt_cache_key", "metadata",
    "client_metadata", "user", "service_tier",
)  # fmt: skip
DOWN = (
    b"x-request-id", b"openai-processing-ms", b"retry-after", b"location", b"server",
    b"x-ratelimit-reset-requests", b"content-type", b"cf-ray", b"openai-version",
    b"openai-organization", b"set-cookie", b"x-proxy-reason",
)  # fmt: skip


async def split(scene: Scene, every: int = 1) -> list[Attack]:
    """Run the attack; of `every` attempts, one is run."""
    up = Attack("injection: client's headers, targets, bodies and upgrades")
    for number, data in enumerate(requests(scene)):
        if number % every == 0:
            await _upward(scene, up, data)
    await scene.rests()
    scene.judged(up)
    down = Attack("splitting: an upstream's headers and status lines")
    for number, (lines, reason) in enumerate(heads()):
        if number % every == 0:
            await _downward(scene, down, lines, reason)
    await scene.rests()
    return [up, scene.judged(down)]


def requests(scene: Scene) -> Iterator[bytes]:
    body = b'{"model":"gpt-5.5","input":"hi"}'
    for gap in BREAKS:
        evil = b"a" + gap + INJECTED
        for name in NAMES:
            if gap != b"\r\n":  # otherwise it is an ordinary second header
                yield post(body, _token(), scene.key, name + b": " + evil)
                lines = (_token(), scene.key, name + b": " + evil)
                yield get(b"/v1/responses", *UPGRADE, *lines)
        for path in (b"/v1/responses?a=", b"/v1/", b"/v1/responses/", b"/admin/", b"/"):
            if not gap.startswith(b"\r\n"):
                yield post(body, _token(), scene.key, path=path + evil)
        for field in FIELDS:
            text = evil.decode("latin-1")
            value = {"session_id": text, "pool_id": text, "session_name": text}
            told = {"model": "gpt-5.5", "input": "hi"}
            yield post(
                json.dumps(
                    {**told, field: value if "metadata" in field else text}
                ).encode(),
                _token(),
                scene.key,
            )
        secret = b"authorization: Bearer " + evil
        if gap != b"\r\n":
            yield post(body, _token(), secret)


def _token() -> bytes:
    return b"x-token: " + tokens.new_token()


def heads() -> Iterator[tuple[bytes, bytes]]:
    """Header lines and reason phrases that the upstream sends."""
    for gap in BREAKS:
        if gap.startswith(b"\r\n\r\n"):
            continue  # an upstream may end its head anywhere
        for name in DOWN:
            if gap != b"\r\n":
                yield name + b": a" + gap + INJECTED + b"\r\n", b"OK"
                yield name + gap + INJECTED + b"\r\n", b"OK"
        if gap != b"\r\n":
            yield b"", b"OK" + gap + INJECTED
            if not gap.startswith(b"\r\n"):  # which would end its head
                yield gap + INJECTED + b"\r\n", b"OK"


async def _upward(scene: Scene, attack: Attack, data: bytes) -> None:
    attack.tries += 1
    async with calling(scene.stack.origin) as caller:
        await caller.send(data)
        await _look(attack, caller, data)


async def _downward(scene: Scene, attack: Attack, lines: bytes, reason: bytes) -> None:
    attack.tries += 1
    scene.upstream.extra_head, scene.upstream.reason = lines, reason
    token = tokens.new_token()
    said = reason + b" " + lines
    try:
        async with calling(scene.stack.origin) as caller:
            body = b'{"model":"gpt-5.5","input":"%b"}' % token
            await caller.send(post(body, scene.key, b"x-token: " + token))
            told = await _look(attack, caller, said)
            whole = await _rest(caller) == tokens.answer(token)
            if told[:12] == b"HTTP/1.1 200" and not whole:
                attack.breach(f"another body after {said!r}")
    finally:
        scene.upstream.extra_head, scene.upstream.reason = b"", b"OK"


async def _rest(caller: Caller) -> bytes:
    await asyncio.sleep(0)
    return bytes(caller.reader._buffer)  # type: ignore[attr-defined]


async def _look(attack: Attack, caller: Caller, sent: bytes) -> bytes:
    """The head of the only answer, which must be clean."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            head = await caller.reader.readuntil(b"\r\n\r\n")
    except (ConnectionError, asyncio.IncompleteReadError):
        attack.ends["closed"] += 1
        return b""
    except TimeoutError:
        attack.breach(f"no answer within {PATIENCE_S} s to {sent!r}")
        return b""
    start, *lines = head[:-4].split(b"\r\n")
    attack.ends[start[9:12].decode("latin-1")] += 1
    names = [line.partition(b":")[0].lower() for line in lines]
    if not STATUS.fullmatch(start) or not all(map(LINE.fullmatch, lines)):
        attack.breach(f"{sent!r} made {head!r}")
    if b"x-evil" in names:
        attack.breach(f"{sent!r} put a line into {head!r}")
    if start[9:12] == b"500":
        attack.breach(f"{sent[:200]!r} made a 500")
    return head
