"""Checks that no answer reaches another request. Clients use kept connections,
pipelines and sockets and disconnect at random, while the upstream violates the
protocol: every byte that a client gets must belong to its own request or be the
gateway's own."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from tests.attack import tokens
from tests.attack.scene import Attack, Scene, is_ours
from tests.attack.upstream import ACTS
from tests.support.clients import raw
from tests.support.clients.frames import CLOSE, TEXT, UPGRADE, frame, read_frame
from tests.support.clients.raw import WAYS, Caller, calling, get, post
from tests.support.clients.wire import cut
from tests.support.processes.waiting import eventually

PATIENCE_S = 60.0
LEAVES = 0.06  # probability that a client disconnects before the answer is complete
# Bytes that follow an answer in the same write.
BEHIND = (b"twice", b"half-more", b"crlf-more", b"long", b"long-chunks")
USUAL = [b"json", b"stream", b"chunked"] * 3
HOSTILE = [*USUAL, *(act for act in ACTS if act not in (*BEHIND, b"twice-late"))]


class Left(Exception):
    """The client disconnected on purpose."""


def request(scene: Scene, token: bytes, act: bytes) -> bytes:
    pad = b"x" * scene.draw.choice((0, 0, 10, 2_000, 60_000))
    if act == b"early":
        pad = b"x" * 300_000
    body = b'{"model":"gpt-5.5","input":"%b %b"}' % (token, pad)
    path = b"/v1/responses?t=" + token
    lines = (scene.key, b"x-token: " + token, b"x-act: " + act)
    if scene.draw.random() < 0.2:
        pieces = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        whole = post(b"", *lines, b"transfer-encoding: chunked", path=path)
        return whole.replace(b"content-length: 0\r\n", b"") + pieces
    return post(body, *lines, path=path)


def judge(attack: Attack, token: bytes, act: bytes, got: "Got") -> None:
    """Check one answer that has ended, complete or not."""
    whole = got.whole and got.status == 200
    streamed = b"".join(tokens.events(token))
    plain = tokens.answer(token)
    if whole and got.body in (plain, streamed) and got.token == token:
        attack.ends["own answers, byte for byte"] += 1
    elif got.whole and got.status >= 500 and is_ours(got.body):
        attack.ends["errors of the gateway"] += 1
    elif whole and _died(got.body, streamed):
        attack.ends["streams ended as failed"] += 1
    elif not got.whole and (plain.startswith(got.body) or _part(got.body, streamed)):
        attack.ends["cut, to be seen as cut"] += 1
    elif got.whole and got.status == 503 and token in got.body:
        attack.ends["own errors of the upstream"] += 1
    else:
        attack.breach(f"{token!r} {act!r}: {got.status} {got.whole} {got.body[:150]!r}")


def _died(body: bytes, streamed: bytes) -> bool:
    """A part of the request's own stream, then the gateway's error event."""
    pairs = zip(body, streamed, strict=False)
    same = next((n for n, (a, b) in enumerate(pairs) if a != b), len(streamed))
    return same > 0 and b"response.failed" in body[max(0, same - 30) :]


def _part(body: bytes, streamed: bytes) -> bool:
    return streamed.startswith(body)


class Got:
    """An answer, as far as it was received."""

    def __init__(self) -> None:
        self.status = 0
        self.token = b""
        self.body = b""
        self.whole = False


async def read(caller: Caller, got: Got) -> None:
    """Raises if the connection ends before the answer does."""
    reader = caller.reader
    status, headers = await caller.head()
    got.status, got.token = status, headers.get("x-token", "").encode()
    if "x-evil" in headers:
        got.token = tokens.EVIL  # part of an unsolicited head
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await _take(reader, size, got)
            assert await reader.readexactly(2) == b"\r\n"
        assert await reader.readexactly(2) == b"\r\n"
    elif "content-length" in headers:
        await _take(reader, int(headers["content-length"]), got)
    else:
        got.body = await reader.read()
    got.whole = True


async def _take(reader: asyncio.StreamReader, size: int, got: Got) -> None:
    while size:
        data = await reader.read(size)
        if not data:
            raise asyncio.IncompleteReadError(b"", size)
        got.body += data
        size -= len(data)


class Client:
    """Sends requests, connection after connection, until enough were answered."""

    def __init__(
        self, scene: Scene, attack: Attack, acts: Sequence[bytes], pipelines: bool
    ) -> None:
        self._scene = scene
        self._acts = acts
        self._attack = attack
        self._draw = scene.draw
        self._pipelines = pipelines

    async def once(self, act: bytes) -> None:
        token, got = tokens.new_token(), Got()
        self._attack.tries += 1
        async with calling(self._scene.stack.origin) as caller:
            await caller.send(request(self._scene, token, act))
            async with asyncio.timeout(PATIENCE_S):
                await read(caller, got)
        judge(self._attack, token, act, got)

    async def connection(self) -> None:
        own: set[bytes] = set()
        async with calling(self._scene.stack.origin) as caller:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    for _ in range(self._draw.randint(1, 12)):
                        await self._round(caller, own)
            except Left:
                self._attack.ends["left by the client"] += 1
                caller.leave(self._draw.choice(WAYS))
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            except TimeoutError:
                self._attack.breach(f"no end within {PATIENCE_S} s: {own}")
            rest = bytes(caller.reader._buffer)  # type: ignore[attr-defined]
            self._nothing_foreign(rest, own)

    def _nothing_foreign(self, data: bytes, own: set[bytes]) -> None:
        others = tokens.foreign(data, own)
        if others:
            self._attack.breach(f"{others} on the connection of {own}")

    async def _round(self, caller: Caller, own: set[bytes]) -> None:
        count = self._draw.randint(2, 6) if self._pipelines else 1
        acts = self._draw.choices(self._acts, k=count)
        asked = [(tokens.new_token(), act) for act in acts]
        own.update(token for token, _ in asked)
        data = b"".join(request(self._scene, *one) for one in asked)
        cuts = range(self._draw.randint(0, 3))
        places = [self._draw.randrange(len(data)) for _ in cuts]
        leaves = self._draw.random() < LEAVES
        self._attack.tries += count
        if leaves and self._draw.random() < 0.3:
            await caller.send(data[: self._draw.randrange(len(data))])
            raise Left
        for piece in cut(data, places):
            await caller.send(piece)
        for token, act in asked:
            await self._answer(caller, token, act, own, leaves)

    async def _answer(
        self, caller: Caller, token: bytes, act: bytes, own: set[bytes], leaves: bool
    ) -> None:
        got = Got()
        try:
            if leaves:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._draw.random() * 0.02):
                        await read(caller, got)
                if not got.whole:
                    raise Left
            else:
                await read(caller, got)
        finally:
            self._nothing_foreign(got.body + b" " + got.token, {token})
            if not (leaves and not got.whole):
                judge(self._attack, token, act, got)


async def over_http(
    scene: Scene,
    answers: int,
    name: str,
    acts: Sequence[bytes],
    *,
    pipelines: bool = False,
) -> Attack:
    attack = Attack(f"mix-ups: {name}")
    client = Client(scene, attack, acts, pipelines)

    async def worker() -> None:
        while judged(attack) < answers:
            await client.connection()

    async with asyncio.TaskGroup() as group:
        for _ in range(32):
            group.create_task(worker())
    await scene.rests()
    return scene.judged(attack)


def judged(attack: Attack) -> int:
    return attack.ends.total() - attack.ends["left by the client"]


async def kept(scene: Scene, answers: int) -> list[Attack]:
    name = "kept connections, clients that leave, hostile upstream"
    return [await over_http(scene, answers, name, HOSTILE)]


async def pipelined(scene: Scene, answers: int) -> list[Attack]:
    name = "pipelines, clients that leave, hostile upstream"
    return [await over_http(scene, answers, name, HOSTILE, pipelines=True)]


async def behind(scene: Scene, answers: int) -> list[Attack]:
    name = "answers with more bytes behind them, clients that leave"
    return [await over_http(scene, answers, name, [*USUAL, *BEHIND])]


# Sockets ----------------------------------------------------------------------


async def over_sockets(scene: Scene, turns: int) -> list[Attack]:
    attack = Attack("mix-ups: turns of sockets, clients that leave, upstream resets")

    async def worker() -> None:
        while judged(attack) < turns:
            own: set[bytes] = set()
            async with calling(scene.stack.origin) as caller:
                with suppress(ConnectionError, asyncio.IncompleteReadError):
                    async with asyncio.timeout(PATIENCE_S):
                        await _socket(scene, attack, caller, own)
                rest = bytes(caller.reader._buffer)  # type: ignore[attr-defined]
            if tokens.foreign(rest, own):
                attack.breach(f"{tokens.foreign(rest, own)} on the socket of {own}")

    async with asyncio.TaskGroup() as group:
        for _ in range(24):
            group.create_task(worker())
    await scene.rests()
    return [scene.judged(attack)]


async def _socket(
    scene: Scene, attack: Attack, caller: Caller, own: set[bytes]
) -> None:
    await caller.send(get(b"/v1/responses", scene.key, *UPGRADE))
    status, _ = await caller.head()
    if status != 101:
        attack.ends["upgrades refused"] += 1
        return
    for _ in range(scene.draw.randint(1, 12)):
        token = tokens.new_token()
        own.add(token)
        act = scene.draw.choice([b"whole"] * 5 + [b"trickle", b"cut"])
        told = b'{"type":"response.create","model":"gpt-5.5","input":"%b","act": "%b"}'
        data = frame(TEXT, told % (token, act))
        attack.tries += 1
        for piece in cut(data, [scene.draw.randrange(len(data))]):
            await caller.send(piece)
        if scene.draw.random() < LEAVES:
            await asyncio.sleep(scene.draw.random() * 0.01)
            caller.leave(scene.draw.choice(WAYS))
            attack.ends["left by the client"] += 1
            return
        if not await _turn(attack, caller, token):
            return


async def _turn(attack: Attack, caller: Caller, token: bytes) -> bool:
    """Read the events of one turn; returns whether the socket is still open."""
    wanted = _events(token)
    for number, event in enumerate(wanted):
        opcode, payload = await read_frame(caller.reader)
        if opcode == CLOSE or payload != event:
            own = not tokens.foreign(payload, {token})
            failed = opcode == CLOSE or b'"type":"error"' in payload.replace(b" ", b"")
            if own and failed and number > 0:
                attack.ends["turns ended as failed"] += 1
            else:
                attack.breach(f"{token!r}: {opcode} {payload[:200]!r}")
            return False
    attack.ends["own turns, byte for byte"] += 1
    return True


def _events(token: bytes) -> list[bytes]:
    return [data.split(b"data: ")[1].strip() for data in tokens.events(token)]


async def unasked(scene: Scene, tries: int) -> list[Attack]:
    """The upstream sends an unsolicited answer on an idle connection. The next request
    is sent only after it has arrived, and must not get it."""
    attack = Attack("mix-ups: answers nobody asked for, on idle connections")
    client = Client(scene, attack, [b"twice-late"], pipelines=False)
    for _ in range(tries):
        await client.once(b"twice-late")
        await eventually(lambda: _all_read(scene))
        await client.once(b"json")
    return [scene.judged(attack)]


async def _all_read(scene: Scene) -> bool:
    sent = scene.upstream.late
    return not sent and raw.in_kernel(scene.upstream.port) == 0
