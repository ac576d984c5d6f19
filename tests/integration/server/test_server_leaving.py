"""Clients that disconnect from a gateway at any moment and in any way leave nothing
behind."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from tests.support.clients import raw
from tests.support.clients.raw import WAYS, Caller, Way, calling, event, post
from tests.support.processes.stack import Stack, gateway_before
from tests.support.processes.tasks import beside
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")
LEAVE = 1000
AT_ONCE = 25
DRAW = random.Random(4)  # noqa: S311 - moments, no secrets
CREATED = event("response.created", sequence_number=0, response={"id": "resp_1"})
DELTA = event("response.output_text.delta", sequence_number=1, delta="x")
DONE = event("response.completed", sequence_number=2, response={"id": "resp_1"})


class Upstream:
    """Answers as a request's body says, and records when its connection ends."""

    def __init__(self) -> None:
        self.asked: set[bytes] = set()
        self.left_at: dict[bytes, float] = {}

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            _, body = await raw.request(reader)
            self.asked.add(body)
            try:
                if not await self._answer(body, reader, writer):
                    return
            finally:
                self.left_at[body] = time.monotonic()

    async def _answer(
        self, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer a request; returns whether the connection is kept."""
        if body.startswith(b"silent"):
            await reader.read(1)
            return False
        writer.write(raw.SSE + raw.CHUNKED + raw.chunk(CREATED))
        if body.startswith(b"stream"):
            await self._go_on(reader, writer)
            return False
        writer.write(raw.chunk(DELTA + DONE) + b"0\r\n\r\n")
        return True

    async def _go_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        async with beside(reader.read(1)) as left:
            while not left.done():
                writer.write(raw.chunk(DELTA))
                await asyncio.wait([left], timeout=0.005)


@pytest.fixture(scope="module")
def upstream() -> Upstream:
    return Upstream()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    upstream: Upstream, valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("gateway")
    async with gateway_before(upstream.serve, valkey_server, folder) as stack:
        yield stack


async def before_the_request(_: Caller, __: bytes) -> None: ...


async def within_the_head(caller: Caller, name: bytes) -> None:
    await caller.send(post(name)[: DRAW.randint(1, 60)])


async def within_the_body(caller: Caller, name: bytes) -> None:
    await caller.send(post(name + b"x" * 500)[:-100])


async def before_the_answer(caller: Caller, name: bytes) -> None:
    await caller.send(post(b"silent " + name))
    await asyncio.sleep(DRAW.random() * 0.01)


async def within_the_stream(caller: Caller, name: bytes) -> None:
    await caller.send(post(b"stream " + name))
    await caller.reader.readuntil(b"delta")


async def after_the_last_event(caller: Caller, name: bytes) -> None:
    await caller.send(post(b"whole " + name))
    await caller.reader.readuntil(b"response.completed")


async def between_two_requests(caller: Caller, name: bytes) -> None:
    await caller.send(post(b"whole " + name))
    await caller.reply()


MOMENTS = (
    before_the_request,
    within_the_head,
    within_the_body,
    before_the_answer,
    within_the_stream,
    after_the_last_event,
    between_two_requests,
)
CANCELLED = (before_the_answer, within_the_stream)
COMPLETED = (after_the_last_event, between_two_requests)


async def leave_often(stack: Stack, count: int) -> Counter[str]:
    """This many clients disconnect; returns how often at which moment."""
    seen: Counter[str] = Counter()
    turn = asyncio.Semaphore(AT_ONCE)

    async def leave(number: int) -> None:
        moment, way = DRAW.choice(MOMENTS), DRAW.choice(WAYS)
        seen[moment.__name__] += 1
        async with turn, calling(stack.origin) as caller:
            await moment(caller, b"%d" % number)
            caller.leave(way)

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(leave(number))
    return seen


async def test_a_thousand_that_leave_at_random_moments_leave_nothing(
    stack: Stack,
) -> None:
    pid = stack.gateway.pid
    await stack.drop_events()
    await leave_often(stack, 200)  # pools and caches fill
    held = await holds_at_least(stack)
    memory = raw.resident_mb(pid)
    before = await outcomes(stack)

    seen = await leave_often(stack, LEAVE)

    async def as_before() -> bool:
        now = await holds(stack)
        return now is not None and now.tasks <= held.tasks and now.files <= held.files

    try:
        await eventually(as_before)
    except AssertionError:
        now = await holds(stack)
        raise AssertionError(f"before: {held}, now: {now}, {raw.links(pid)}") from None
    at_rest = await holds_at_rest(stack)
    assert at_rest.upstream <= AT_ONCE
    # Each task uses one connection at a time, and all share the one for requests.
    assert at_rest.redis <= at_rest.tasks + 1
    assert raw.resident_mb(pid) < memory + 8
    counted = (await outcomes(stack)) - before
    assert counted["completed"] == sum(seen[m.__name__] for m in COMPLETED)
    # A request whose client disconnected before it was read completely is not counted.
    silent = seen[before_the_answer.__name__]
    streams = seen[within_the_stream.__name__]
    assert streams <= counted["cancelled"] <= streams + silent
    assert set(counted) == {"completed", "cancelled"}


@dataclass(frozen=True)
class Held:
    """What a gateway at rest holds."""

    tasks: float
    files: int  # descriptors that are no connection to Redis or an upstream
    redis: int  # connections
    upstream: int


async def holds_at_least(stack: Stack) -> Held:
    """The least of several looks: a look may find a flush of events or a scan for
    crashed journals, which come and go by themselves."""
    looks = [await holds_at_rest(stack) for _ in range(10)]
    return Held(
        tasks=min(look.tasks for look in looks),
        files=min(look.files for look in looks),
        redis=min(look.redis for look in looks),
        upstream=min(look.upstream for look in looks),
    )


async def holds_at_rest(stack: Stack) -> Held:
    held = await eventually(lambda: holds(stack))
    assert held is not None
    return held


async def holds(stack: Stack) -> Held | None:
    """None while the gateway is not at rest."""
    if await stack.in_flight():
        return None
    async with raw.looking(stack) as look:
        shown = await look()
        # One connection is ours, and open until the descriptors are counted.
        if (shown["requests_in_flight"], shown["open_connections"]) != (0, 1):
            return None
        counted = raw.descriptors(stack.gateway.pid)
    redis, upstream = (
        counted[urlsplit(stack.environ[name]).port or 0]
        for name in ("PROXY_REDIS_URL", "PROXY_UPSTREAM_BASE_URL")
    )
    files = counted.total() - redis - upstream
    return Held(shown["tasks"], files, redis, upstream)


async def outcomes(stack: Stack) -> Counter[str]:
    return Counter(event["outcome"] for event in await stack.events("request"))


@pytest.mark.alone
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("moment", CANCELLED, ids=lambda m: m.__name__)
async def test_its_upstream_is_closed_within_100_ms(
    stack: Stack, upstream: Upstream, moment: object, way: Way
) -> None:
    took, asked = [], []
    for number in range(5):
        began = time.monotonic()
        await raw.gauge(stack, "tasks")
        asked.append(time.monotonic() - began)
        name = f"{way} {number}".encode()
        body = (b"silent " if moment is before_the_answer else b"stream ") + name
        async with calling(stack.origin) as caller:
            if moment is before_the_answer:
                await caller.send(post(body))
                await _asked(upstream, body)
            else:
                await within_the_stream(caller, name)
            left = time.monotonic()
            caller.leave(way)
            took.append(await _closed_at(upstream, body) - left)
            upstream.left_at.clear()
            upstream.asked.clear()
    # Medians, because the machine has other work, and a plain request takes time too.
    assert sorted(took)[2] < 0.1 + 2 * sorted(asked)[2], (took, asked)


async def _asked(upstream: Upstream, body: bytes) -> None:
    async def noted() -> bool:
        return body in upstream.asked

    await eventually(noted)


async def _closed_at(upstream: Upstream, body: bytes) -> float:
    async def noted() -> float | None:
        return upstream.left_at.get(body)

    at = await eventually(noted, every_s=0.001)
    assert at is not None
    return at
