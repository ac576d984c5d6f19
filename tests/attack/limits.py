"""Exceeds every limit: each attempt gets its documented answer, the gateway's memory
stays bounded, and nothing is left afterwards."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import cache

from tests.attack.scene import LARGEST_BODY, MOST_CONNECTIONS, Attack, Scene
from tests.support.clients import raw
from tests.support.clients.frames import CLOSE, PING, TEXT, UPGRADE, frame, read_frame
from tests.support.clients.raw import Caller, calling, get, post
from tests.support.processes.tasks import beside

PATIENCE_S = 60.0
GROWTH_MB = 200  # of the gateway, over the whole attack
HEAD = b"POST /v1/responses HTTP/1.1\r\nhost: proxy\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
JSON = b'{"model":"gpt-5.5","input":%b}'


@dataclass(frozen=True)
class Case:
    """What is sent after the key's header, and which answers are allowed."""

    name: str
    data: Callable[[bytes], bytes]  # takes the key's header line
    statuses: tuple[int, ...]
    times: int = 20


def _body(body: bytes, *lines: bytes) -> Callable[[bytes], bytes]:
    return lambda key: post(body, key, *lines)


def _head(rest: bytes) -> Callable[[bytes], bytes]:
    return lambda key: HEAD + key + b"\r\n" + rest


@cache
def _bomb() -> bytes:
    """200 MB of spaces, compressed when it is first sent: that takes a second."""
    return gzip.compress(b" " * 200_000_000, 1)


LONG = b"x" * 1_000_000
CASES = (
    Case("a head over 64 KiB", _head(b"x: " + b"y" * 70_000 + b"\r\n\r\n"), (431,)),
    Case("a head without end", _head(b"x: y\r\n" * 200_000), (431,)),
    Case("129 headers", _head(b"x: y\r\n" * 129 + b"\r\n"), (431,)),
    Case("a long target", lambda _: get(b"/v1/" + b"x" * 200_000), (431,)),
    Case("a header's name of 1 MB", _head(LONG + b": y\r\n\r\n"), (431,)),
    Case("a body over the limit", _head(b"content-length: 9999999\r\n\r\n"), (413,)),
    Case(
        "the same in chunks",
        _head(CHUNKED + raw.chunk(b"x" * 100_000) * (LARGEST_BODY // 100_000 + 1)),
        (413,),
    ),
    Case(
        "300,000 chunks of a byte",
        _head(CHUNKED + b"1\r\n \r\n" * 300_000 + b"2\r\n{}\r\n0\r\n\r\n"),
        (200,),
        5,
    ),
    Case("extensions of chunks without end", _head(CHUNKED + b"1;" + LONG * 2), (431,)),
    Case(
        "trailers without end",
        _head(CHUNKED + b"0\r\n" + b"x: y\r\n" * 100_000),
        (431,),
    ),
    Case(
        "a gzip bomb",
        lambda key: post(_bomb(), key, b"content-encoding: gzip"),
        (200, 400, 413),
        5,
    ),
    Case("JSON 900,000 deep", _body(b"[" * 900_000), (200, 400), 5),
    Case(
        "600,000 empty items",
        _body(JSON % (b"[" + b"{}," * 600_000 + b"{}]")),
        (200, 400, 413),
        5,
    ),
    Case(
        "100,000 ids",
        _body(JSON % (b"[" + b'{"id":"msg_1"},' * 100_000 + b"{}]")),
        (200, 400),
        5,
    ),
    Case("a head that stops", _head(b"x"), (408,)),
    Case("a body that stops", _head(b"content-length: 5\r\n\r\nx"), (408,)),
)
SOCKETS = (
    ("a message over the limit", frame(TEXT, b"x" * (LARGEST_BODY + 1)), 1009),
    ("the length of such a one", b"\x81\xff" + b"\x3f" + b"\xff" * 7, 1009),
    (
        "fragments over the limit",
        frame(TEXT, fin=False) + frame(0, LONG, fin=False) * 3,
        1009,
    ),
    ("an unmasked frame", frame(TEXT, b"x", masked=False), 1002),
    ("a reserved opcode", frame(3), 1002),
    ("text that is no UTF-8", frame(TEXT, b"\xff"), 1007),
)


async def exhaust(scene: Scene, every: int = 1) -> list[Attack]:
    """Run the attack; of `every` cases of a kind, one is run."""
    before = raw.resident_mb(scene.stack.gateway.pid)
    attack = Attack("limits: heads, bodies, chunks, shapes, slow clients")
    for case in CASES:
        times = max(1, case.times // every)
        await asyncio.gather(*(_one(scene, attack, case) for _ in range(times)))
    sockets = Attack("limits: frames, fragments, floods nobody reads")
    for name, data, code in SOCKETS:
        for _ in range(max(1, 20 // every)):
            await _socket(scene, sockets, name, data, code)
    turn = b'{"type":"response.create","model":"gpt-5.5","input":"tok-00000001"}'
    for data in (frame(PING, b"x" * 125), frame(TEXT, turn)):
        await _flood(scene, sockets, data)
    crowd = Attack("limits: connections, trickling heads")
    await _crowd(scene, crowd)
    await scene.rests()
    grown = raw.resident_mb(scene.stack.gateway.pid) - before
    attack.name += f" (memory grew by {grown:.0f} MB, {GROWTH_MB} allowed)"
    if grown > GROWTH_MB:
        attack.breach(f"the gateway grew by {grown:.0f} MB")
    if "Traceback" in scene.stack.gateway.log.read_text():
        attack.breach("a traceback in the gateway's log")
    return [scene.judged(attack), sockets, crowd]


async def _one(scene: Scene, attack: Attack, case: Case) -> None:
    attack.tries += 1
    # Before the connection: its head is due within two seconds.
    data = case.data(scene.key)
    async with (
        calling(scene.stack.origin) as caller,
        beside(caller.send(data)),
        _bounded(),
    ):
        try:
            status, _ = await caller.head()
        except (ConnectionError, asyncio.IncompleteReadError):
            status = 0
    attack.ends[str(status)] += 1
    if status not in case.statuses:
        attack.breach(f"{case.name}: {status}, not {case.statuses}")


def _bounded() -> asyncio.Timeout:
    return asyncio.timeout(PATIENCE_S)


async def _opened(scene: Scene, caller: Caller) -> None:
    await caller.send(get(b"/v1/responses", scene.key, *UPGRADE))
    status, _ = await caller.head()
    assert status == 101, status


async def _socket(
    scene: Scene, attack: Attack, name: str, data: bytes, code: int
) -> None:
    attack.tries += 1
    async with calling(scene.stack.origin) as caller, _bounded():
        await _opened(scene, caller)
        async with beside(caller.send(data)):
            opcode, payload = 0, b""
            while opcode != CLOSE:
                opcode, payload = await read_frame(caller.reader)
    told = int.from_bytes(payload[:2], "big")
    attack.ends[f"closed with {told}"] += 1
    if told != code:
        attack.breach(f"{name}: {told}, not {code}")


async def _flood(scene: Scene, attack: Attack, data: bytes) -> None:
    """The client does not read the answers, so the gateway must stop reading
    requests."""
    attack.tries += 1
    sent = 0

    async def send(caller: Caller) -> None:
        nonlocal sent
        while True:
            await caller.send(data * 200)
            sent += 1

    async with calling(scene.stack.origin, buffer=4_096) as caller:
        await _opened(scene, caller)
        caller.reader._transport.pause_reading()  # type: ignore[attr-defined]
        async with beside(send(caller)):
            await raw.stalled(scene.stack, lambda: sent)
    attack.ends["not heard any more"] += 1


async def _crowd(scene: Scene, attack: Attack) -> None:
    """Open more connections than allowed, all with heads that trickle in. Clients with
    complete requests are served again once those connections time out."""
    async with AsyncExitStack() as callers:
        for _ in range(MOST_CONNECTIONS + 64):
            attack.tries += 1
            caller = await callers.enter_async_context(calling(scene.stack.origin))
            with suppress(ConnectionError):
                await caller.send(HEAD)
        answers = [_answered(scene, attack) for _ in range(16)]
        await asyncio.gather(*answers)


async def _answered(scene: Scene, attack: Attack) -> None:
    """Send a request as clients do: again, while the gateway has no room."""
    attack.tries += 1
    for wait in _tries():
        await wait()
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            async with calling(scene.stack.origin) as caller, _bounded():
                await caller.send(post(JSON % b'"hi"', scene.key))
                status = (await caller.reply()).status
                attack.ends[str(status)] += 1
                if status == 200:
                    return
    attack.breach("no answer while others trickle")


def _tries() -> list[Callable[[], Awaitable[None]]]:
    return [lambda: asyncio.sleep(0.25)] * 80
