"""WebSocket messages through a gateway process keep content, type and order, in both
directions at once, whatever their frames."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection, serve

from tests.support.databases.valkey import empty
from tests.support.processes.stack import Stack, gateway_stack

pytestmark = pytest.mark.asyncio(loop_scope="module")
bounded = settings(deadline=None, derandomize=True, database=None, max_examples=150)
LARGEST = 16_777_216
MEGABYTES = 3_000_000


@dataclass(frozen=True)
class Said:
    """A message, and the frames it is sent in."""

    content: str | bytes
    frames: tuple[bytes, ...]

    async def send(self, socket: Connection) -> None:
        await socket.send(self.frames, text=isinstance(self.content, str))


@dataclass
class Upstream:
    """Sends scripted messages, and records received ones."""

    says: list[Said] = field(default_factory=list)
    awaits: int = 0
    heard: "asyncio.Future[list[str | bytes]] | None" = None

    async def handle(self, socket: ServerConnection) -> None:
        assert self.heard is not None
        heard = await both_ways(socket, self.says, self.awaits)
        self.heard.set_result(heard)
        await socket.wait_closed()


async def both_ways(
    socket: Connection, says: list[Said], awaits: int
) -> list[str | bytes]:
    """Send all messages, and receive the given number at the same time."""

    async def speak() -> None:
        for message in says:
            await message.send(socket)

    async def listen() -> list[str | bytes]:
        return [await socket.recv() for _ in range(awaits)]

    return (await asyncio.gather(listen(), speak()))[0]


@dataclass(frozen=True)
class Rig:
    stack: Stack
    upstream: Upstream

    async def exchange(
        self, up: list[Said], down: list[Said]
    ) -> tuple[list[str | bytes], list[str | bytes]]:
        """What the upstream received, and what the client received."""
        upstream = self.upstream
        upstream.says, upstream.awaits = down, len(up)
        upstream.heard = asyncio.get_running_loop().create_future()
        url = self.stack.url.replace("http", "ws", 1) + "/responses"
        async with connect(
            url, proxy=None, compression=None, max_size=LARGEST
        ) as socket:
            client = await both_ways(socket, up, len(down))
            return await upstream.heard, client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Rig]:
    empty(valkey_server)
    upstream = Upstream()
    async with serve(upstream.handle, "127.0.0.1", 0, max_size=LARGEST) as server:
        (listening,) = server.sockets
        own = {
            "PROXY_UPSTREAM_BASE_URL": f"http://127.0.0.1:{listening.getsockname()[1]}",
            "PROXY_MAX_BODY_BYTES": str(LARGEST),
            "OPENAI_API_KEYS": "sk-one",
            "OPENAI_RESOURCE_ACCOUNT_IDS": "acct",
        }
        folder = tmp_path_factory.mktemp("sockets")
        async with gateway_stack(valkey_server, folder, **own) as stack:
            yield Rig(stack, upstream)


places = st.lists(st.integers(0, 1 << 24), max_size=5)


def said(content: str | bytes, places: list[int]) -> Said:
    """In frames cut anywhere: within a character, or empty."""
    data = content.encode() if isinstance(content, str) else content
    ends = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    frames = (data[start:end] for start, end in pairwise(ends))
    return Said(content, tuple(frames))


small = st.one_of(
    st.text(max_size=200),
    st.binary(max_size=200),
    st.just('{"type":"response.processed","response_id":"resp_1"}'),
    st.just('{"type":"response.created","response":{}}'),
    st.sampled_from(["{", "null", "[]", '{"type":7}', "\x00", "é" * 70_000]),
)
talk = st.lists(st.builds(said, small, places), max_size=6)


@bounded
@given(up=talk, down=talk)
async def test_messages_pass_as_they_were_sent(
    rig: Rig, up: list[Said], down: list[Said]
) -> None:
    heard, client = await rig.exchange(up, down)

    assert heard == [message.content for message in up]
    assert client == [message.content for message in down]


@pytest.mark.parametrize("fragments", [[], [7, 1_000_003]], ids=["whole", "in parts"])
async def test_large_messages_cross(rig: Rig, fragments: list[int]) -> None:
    text = "ab☃" * (MEGABYTES // 5)
    data = bytes(range(256)) * (MEGABYTES // 256)
    talk = [said(content, fragments) for content in (text, data, "end", text)]

    heard, client = await rig.exchange(talk, talk[::-1])

    assert heard == [text, data, "end", text]
    assert client == [text, "end", data, text]
