"""An upstream that echoes the key it was sent: neither clients nor the ledger get
it."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
import zstandard
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from libs.common.redis import keys
from tests.support.clients.raw import CHUNKED, SSE, chunk, event, request
from tests.support.databases.redis_dump import dump
from tests.support.databases.valkey import empty
from tests.support.processes.stack import STREAM, Stack, gateway_before, gateway_stack
from tests.support.processes.waiting import eventually
from tests.support.processes.written import written

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "sk-proj-Echo/0123456789_abcdefghijklmnop"
SETTINGS = {
    "OPENAI_API_KEYS": KEY,
    "OPENAI_RESOURCE_ACCOUNT_IDS": "acct",
    "PROXY_LOG_LEVEL": "debug",
    "PROXY_MAX_ATTEMPTS": "1",
}
JSON = b"content-type: application/json"
TEXT_PLAIN = b"content-type: text/plain"


def refusal(message: str = f"Incorrect API key provided: Bearer {KEY}.") -> bytes:
    """An error in OpenAI's format with the key in every member that the ledger
    reads."""
    error = {"message": message, "type": "invalid", "param": None, "code": message}
    return json.dumps({"error": error}).encode()


def whole(status: int, body: bytes, *lines: bytes) -> list[bytes]:
    """An answer in one piece."""
    head = [b"HTTP/1.1 %d Odd" % status, *lines, b"content-length: %d" % len(body)]
    return [b"\r\n".join([*head, b"", body])]


def cut(status: int, body: bytes, *lines: bytes) -> list[bytes]:
    """The same in chunks that split the key."""
    at = body.index(KEY.encode()) + len(KEY) // 2
    head = [b"HTTP/1.1 %d Odd" % status, *lines, CHUNKED]
    pieces = [chunk(body[:at]), chunk(body[at:]), b"0\r\n\r\n"]
    return [b"\r\n".join(head), *pieces]


def escaped() -> bytes:
    every = "".join(f"\\u{ord(c):04X}" for c in KEY)
    return refusal("MARK").replace(b"MARK", every.encode())


def percent() -> bytes:
    return (
        b"Not found: /v1/models?key=" + "".join(f"%{ord(c):02x}" for c in KEY).encode()
    )


def streamed(*events: bytes) -> list[bytes]:
    return [SSE + CHUNKED, *(chunk(data) for data in events), b"0\r\n\r\n"]


CREATED = event("response.created", response={"id": "resp_1", "object": "response"})
FAILED = event(
    "response.failed",
    response={"id": "resp_1", "error": {"code": KEY, "message": f"Key {KEY} failed"}},
)
TEXT = event("response.output_text.delta", delta=f"The key is {KEY}.")
DONE = event("response.completed", response={"id": "resp_1", "model": f"m {KEY}"})
AT = FAILED.index(KEY.encode()) + 9
ANSWER = json.dumps({"object": "response", "id": f"resp_{KEY}", "model": KEY}).encode()
PACKED = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.compress,
}

# In brotli: a stored block after a byte with its size. A client that accepts br can
# read it; this gateway cannot.
BROTLI = b"\x0f\x80" + refusal() + b"\x03"

# What the upstream does, by test name.
ECHOES: dict[str, Callable[[], list[bytes]]] = {
    "json": lambda: whole(400, refusal(), JSON),
    "plain text": lambda: whole(404, f"No: {KEY}".encode(), TEXT_PLAIN),
    "escaped json": lambda: whole(422, escaped(), JSON),
    "an escaped slash": lambda: whole(400, refusal().replace(b"/", rb"\/"), JSON),
    "percent": lambda: whole(404, percent(), b"content-type: text/html"),
    "in chunks": lambda: cut(409, refusal(), JSON),
    "a header": lambda: whole(400, b"{}", JSON, b"www-authenticate: " + KEY.encode()),
    "key refused": lambda: whole(401, refusal(), JSON),
    "rate limited": lambda: cut(429, refusal(), JSON),
    "server error": lambda: whole(500, refusal(), JSON, b"x-tried: " + KEY.encode()),
    "a coding nobody knows": lambda: whole(
        400, BROTLI, JSON, b"content-encoding: br"
    ),
    "a coding it is not": lambda: whole(
        400, refusal(), JSON, b"content-encoding: zstd"
    ),
    **{
        f"{coding} {status}": lambda pack=pack, coding=coding, status=status: whole(  # type: ignore[misc]
            status, pack(refusal()), JSON, b"content-encoding: " + coding.encode()
        )
        for coding, pack in PACKED.items()
        for status in (400, 503)
    },
    "a good answer": lambda: whole(200, ANSWER, JSON),
    "a good answer in chunks": lambda: cut(200, ANSWER, JSON),
    "a good answer's header": lambda: whole(
        200, b"{}", JSON, b"x-key: " + KEY.encode()
    ),
    "an account's header": lambda: whole(
        200, b"{}", JSON, b"openai-organization: " + KEY.encode()
    ),
    "a stream's failure": lambda: streamed(CREATED, FAILED),
    "a stream's failure in chunks": lambda: streamed(CREATED, FAILED[:AT], FAILED[AT:]),
    "a stream's text": lambda: streamed(CREATED, TEXT, DONE),
}  # fmt: skip


BROKEN_OFF = "an error that breaks off"


async def echoing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        head, body = await request(reader)
        assert KEY.encode() in head
        name = json.loads(body)["input"]
        if name == BROKEN_OFF:
            writer.write(whole(400, refusal(), JSON)[0][:-9])
            await writer.drain()
            return
        for piece in ECHOES[name]():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("echoes")
    async with gateway_before(echoing, valkey_server, folder, **SETTINGS) as stack:
        yield stack


async def everything(stack: Stack) -> bytes:
    """Everything the product stores: Redis, journal, log."""
    kept = await asyncio.to_thread(written, Path(stack.environ["PROXY_DATA_DIR"]))
    return b"\n".join([await dump(stack.redis), kept])


def shows_key(data: bytes) -> bool:
    return any(spelled in data for spelled in (KEY.encode(), b"0123456789_abcdefghij"))


@pytest.mark.parametrize("name", ECHOES)
async def test_an_upstream_that_echoes_the_key(
    stack: Stack, valkey_server: str, name: str
) -> None:
    """An upstream's error that contains the key reaches neither the client nor the
    ledger."""
    empty(valkey_server)
    await stack.reset()
    before = await stack.redis.xlen(keys.payloads(STREAM))
    async with httpx.AsyncClient(timeout=20) as http:
        answer = await http.post(
            f"{stack.url}/responses", json={"model": "m", "input": name}
        )
    heard = repr(answer.headers).encode() + answer.content
    assert answer.headers["x-proxy-resource-id"] == "openai-1"
    assert answer.status_code == int(ECHOES[name]()[0].split(b" ")[1])
    assert not shows_key(heard), heard
    if escaped() in answer.content or percent() in answer.content:
        raise AssertionError("it is only spelled in another way")
    assert await stack.request(answer.headers["x-proxy-request-id"])

    async def captured() -> bool:
        return await stack.redis.xlen(keys.payloads(STREAM)) > before

    await eventually(captured)
    assert not shows_key(await everything(stack))


async def test_a_message_without_the_key_says_what_was_wrong(
    stack: Stack, valkey_server: str
) -> None:
    empty(valkey_server)
    await stack.reset()
    async with httpx.AsyncClient(timeout=20) as http:
        answer = await http.post(
            f"{stack.url}/responses", json={"model": "m", "input": "gzip 400"}
        )
    message = "Incorrect API key provided: Bearer [upstream key]."
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == message
    assert "content-encoding" not in answer.headers
    row = await stack.request(answer.headers["x-proxy-request-id"])
    assert (row["error_message"], row["error_code"]) == (message, message)
    assert row["status_code"] == 400


async def test_an_error_that_breaks_off_is_no_answer(
    stack: Stack, valkey_server: str
) -> None:
    """An incomplete body cannot be searched."""
    empty(valkey_server)
    await stack.reset()
    async with httpx.AsyncClient(timeout=20) as http:
        answer = await http.post(
            f"{stack.url}/responses", json={"model": "m", "input": BROKEN_OFF}
        )
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_unreachable"
    assert not shows_key(answer.content)


async def test_frames_that_echo_the_key(valkey_server: str, tmp_path: Path) -> None:
    failed = {
        "type": "response.failed",
        "response": {"id": "resp_1", "error": {"code": KEY, "message": f"No {KEY}"}},
    }

    async def upstream(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(json.dumps({"type": "note", "text": KEY}).encode())
        await socket.send(json.dumps(failed))
        await socket.close(1008, f"bad key {KEY}")

    empty(valkey_server)
    async with serve(upstream, "127.0.0.1", 0) as server:
        (listening,) = server.sockets
        base = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        settings = {**SETTINGS, "PROXY_UPSTREAM_BASE_URL": base}
        async with gateway_stack(valkey_server, tmp_path, **settings) as stack:
            url = stack.url.replace("http", "ws", 1) + "/responses"
            async with connect(url, proxy=None) as socket:
                await socket.send('{"type":"response.create","model":"m"}')
                heard = [await socket.recv() for _ in range(2)]
                with pytest.raises(ConnectionClosed) as closed:
                    await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.reason == "bad key [upstream key]"
            assert not shows_key(repr(heard).encode())

            async def told() -> bool:
                return bool(await stack.events("request"))

            await eventually(told)
            (row,) = await stack.events("request")
            assert row["error_message"].startswith("No [upstream key]")
            assert not shows_key(await everything(stack))


async def test_an_upgrade_whose_refusal_echoes_the_key(
    valkey_server: str, tmp_path: Path
) -> None:
    async def refusing(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await request(reader)
        body = gzip.compress(refusal())
        lines = JSON, b"content-encoding: gzip", b"x-key: " + KEY.encode()
        writer.write(whole(400, body, *lines)[0])
        await writer.drain()

    async with gateway_before(refusing, valkey_server, tmp_path, **SETTINGS) as stack:
        url = stack.url.replace("http", "ws", 1) + "/responses"
        with pytest.raises(InvalidStatus) as refused:
            async with connect(url, proxy=None):
                pass
        answer = refused.value.response
        assert answer.status_code == 400
        assert not shows_key(repr(answer.headers.items()).encode())
        assert not shows_key(answer.body or b"")
        assert b"[upstream key]" in (answer.body or b"")
        assert "content-encoding" not in answer.headers

        async def told() -> bool:
            return bool(await stack.events("request"))

        await eventually(told)
        assert not shows_key(await everything(stack))
