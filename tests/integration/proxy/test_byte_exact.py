"""A message through a gateway process arrives as through a direct connection, except
for the headers that `up` and `down` change."""

import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import pytest
import pytest_asyncio
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.headers import Header
from services.gateway.content.headers import readable
from tests.support.clients.exact import KEY, Exchange, Rig, gateway_rig
from tests.support.clients.wire import Message, Reply, chunked, cut

pytestmark = pytest.mark.asyncio(loop_scope="module")
# The same examples each time: a failure here is a failure everywhere.
bounded = settings(deadline=None, derandomize=True, database=None, max_examples=150)

# What may differ -------------------------------------------------------------

HOP_BY_HOP = {
    *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization"),
    *(b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
}
CREDENTIALS = {
    *(b"authorization", b"api-key", b"x-api-key", b"cookie"),
    b"ocp-apim-subscription-key",
    *(b"openai-organization", b"openai-project"),
}
OF_THE_ACCOUNT = {b"set-cookie", b"openai-organization", b"openai-project", b"alt-svc"}
OURS = {
    *(b"x-proxy-request-id", b"x-proxy-attempts"),
    *(b"x-proxy-resource-id", b"x-proxy-reason"),
}


def passing(message: Message, stays: set[bytes]) -> list[Header]:
    """The headers of a direct connection that also pass a gateway, in order: all except
    those of one connection, the proxy's own, and those in `stays`."""
    named = {
        option.strip().lower()
        for name, value in message.headers
        if name == b"connection"
        for option in value.split(b",")
    }
    gone = HOP_BY_HOP | named | stays
    return [
        header
        for header in message.headers
        if header[0] not in gone and not header[0].startswith(b"x-proxy-")
    ]


def up(direct: Message) -> tuple[bytes, list[Header], bytes]:
    """What an upstream gets of a request through a gateway; Content-Length is the
    body's length, whatever framed the body."""
    stays = CREDENTIALS | {b"host", b"content-length", b"expect"}
    kept = [
        (name, readable(value) if name == b"accept-encoding" else value)
        for name, value in passing(direct, stays)
    ]
    return direct.start, kept, direct.body


def down(direct: Message) -> tuple[int, list[Header], bytes]:
    """What a client gets of an answer through a gateway. The gateway replaces the
    reason phrase: nothing may depend on it (RFC 9112 section 4)."""
    return direct.status, passing(direct, OF_THE_ACCOUNT), direct.body


def without(message: Message, names: set[bytes]) -> list[Header]:
    return [header for header in message.headers if header[0] not in names]


# What is said ----------------------------------------------------------------

TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
KNOWN = [
    *(*sorted(HOP_BY_HOP - {b"connection", b"transfer-encoding", b"upgrade"}),),
    *(*sorted(CREDENTIALS | OF_THE_ACCOUNT),),
    *(b"Content-Type", b"Accept-Encoding", b"OpenAI-Beta", b"X-Codex-Turn-State"),
    *(b"X-Request-Id", b"X-Session-Id", b"session_id", b"X-Proxy-Session-Name"),
    *(b"X-Proxy-Reason", b"ETag", b"Link", b"X-Hop", b"Date", b"Server", b"Age"),
]
# They frame the message, select a pool, or change the request.
SPECIAL = {
    *(b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade"),
    *(b"expect", b"content-encoding", b"x-pool-id", b"x-proxy-pool-id"),
}
VISIBLE = bytes([9, *range(32, 127), *range(128, 256)])


def of_bytes(
    alphabet: bytes, least: int = 0, most: int = 24
) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(alphabet), min_size=least, max_size=most).map(bytes)


names = st.one_of(
    st.sampled_from(KNOWN),
    st.text(TOKEN, min_size=1, max_size=16).map(str.encode),
).filter(lambda name: name.lower() not in SPECIAL)
values = st.one_of(
    of_bytes(VISIBLE),
    st.just(b""),
    st.builds(lambda value, times: value * times, of_bytes(VISIBLE, 1), st.just(300)),
)
headers = st.lists(st.tuples(names, values), max_size=8)
connection = st.sampled_from(
    [(), ((b"Connection", b"X-Hop, keep-alive"),), ((b"CONNECTION", b"te,x-Hop"),),
     ((b"Connection", b"keep-alive"), (b"connection", b"x-hop"))]
)  # fmt: skip
PATH_BYTES = b"abcXYZ019-._~!$&'()*+,;=:@\"<>[]^`{|}"
escapes = st.one_of(
    st.integers(0, 255).map(lambda byte: b"%%%02x" % byte),
    st.sampled_from([b"%E2%82%AC", b"%c3%a9", b"%F0%9F%98%80", b"%zz", b"%"]),
)


def spelled(alphabet: bytes) -> st.SearchStrategy[bytes]:
    piece = st.one_of(of_bytes(alphabet, 1, 8), escapes)
    return st.lists(piece, max_size=4).map(b"".join)


def stays_below(segment: bytes) -> bool:
    plain = unquote_to_bytes(segment)
    return plain not in (b".", b"..") and b"/" not in plain and b"\\" not in plain


targets = st.builds(
    lambda segments, query: b"/v1/" + b"/".join(segments) + query,
    st.lists(spelled(PATH_BYTES).filter(stays_below), max_size=4),
    st.one_of(
        st.just(b""), spelled(PATH_BYTES + b"/?\\").map(lambda query: b"?" + query)
    ),
)


@dataclass(frozen=True)
class Body:
    """A body and its content encoding."""

    data: bytes
    coding: bytes = b""

    @property
    def headers(self) -> list[Header]:
        return [(b"Content-Encoding", self.coding)] if self.coding else []


texts = st.dictionaries(
    st.text(max_size=8), st.one_of(st.text(max_size=40), st.integers(), st.none())
).map(lambda fields: json.dumps({"model": "m", **fields}, ensure_ascii=False).encode())
plain = st.one_of(
    st.just(b""),
    texts,
    st.binary(max_size=200),
    st.builds(lambda data, times: data * times, st.binary(min_size=1), st.just(9_000)),
)
bodies = st.one_of(
    plain.map(Body),
    plain.map(lambda data: Body(gzip.compress(data, mtime=0), b"gzip")),
    plain.map(lambda data: Body(zstandard.compress(data), b"zstd")),
    plain.map(lambda data: Body(data, b"zstd")),  # which is false
)
places = st.lists(st.integers(0, 1 << 20), max_size=6)


def head(start: bytes, lines: list[Header], colon: bytes) -> bytes:
    written = [name + colon + value + b"\r\n" for name, value in lines]
    return b"%b\r\n%b\r\n" % (start, b"".join(written))


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, bytes]:
    method = draw(
        st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
    )
    body = draw(bodies)
    lines = [(b"Host", b"client.test"), *draw(headers), *draw(connection)]
    framing = draw(st.sampled_from(["length", "chunks"]))
    if body.data and framing == "chunks":
        lines.append((b"Transfer-Encoding", b"chunked"))
        data = chunked(cut(body.data, draw(places)))
    else:
        data = body.data
        if data or framing == "length":
            lines.append((b"content-Length", b"%d" % len(data)))
    start = b"%b %b HTTP/1.1" % (method.encode(), draw(targets))
    colon = draw(st.sampled_from([b": ", b":", b":\t "]))
    return method, head(start, [*lines, *body.headers], colon) + data


# All statuses that do not cause a retry on another resource.
STATUSES = [
    s for s in range(200, 600) if s not in (401, 403, 429, 500, 502, 503, 504, 529)
]
COMMON = [200, 201, 204, 304, 400, 404, 409]


@st.composite
def replies(draw: st.DrawFn, method: str) -> Reply:
    status = draw(st.one_of(st.sampled_from(COMMON), st.sampled_from(STATUSES)))
    body = draw(bodies)
    lines = [*draw(headers), *draw(connection), *body.headers]
    framing = draw(st.sampled_from(["length", "chunks", "close", "1.0"]))
    data = body.data
    if framing == "length" and status != 204:
        lines.append((b"Content-Length", b"%d" % len(data)))
    elif framing == "chunks" and status != 204:
        lines.append((b"Transfer-Encoding", b"Chunked"))
        extension, trailer = draw(
            st.sampled_from([(b"", b""), (b";a=b", b"X-Trailer: t\r\n")])
        )
        data = chunked(cut(data, draw(places)), extension, trailer)
    if method == "HEAD" or status in (204, 304):
        data = b""
    version = b"1.0" if framing == "1.0" else b"1.1"
    start = b"HTTP/%b %d %b" % (version, status, draw(of_bytes(b"Odd phrase", 0, 9)))
    whole = head(start, lines, draw(st.sampled_from([b": ", b":"]))) + data
    pause = draw(st.sampled_from([0.0, 0.0, 0.001]))
    closes = framing in ("close", "1.0")
    return Reply(cut(whole, draw(places)), pause, closes)


@st.composite
def exchanges(draw: st.DrawFn) -> Exchange:
    method, request = draw(requests())
    return Exchange(method, cut(request, draw(places)), draw(replies(method)))


# A gateway and a direct connection -------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Rig]:
    async with gateway_rig(valkey_server, tmp_path_factory.mktemp("exact")) as rig:
        yield rig


@bounded
@given(said=st.lists(exchanges(), min_size=1, max_size=3))
async def test_a_gateway_brings_what_a_direct_connection_brings(
    rig: Rig, said: list[Exchange]
) -> None:
    direct = await rig.ask(rig.direct_port, said)
    through = await rig.ask(rig.gateway_port, said)

    for (asked, answered), (sent, received) in zip(direct, through, strict=True):
        assert_went_up(rig, asked, sent)
        assert_came_down(answered, received)


def assert_went_up(rig: Rig, direct: Message, sent: Message) -> None:
    start, kept, body = up(direct)
    assert (sent.start, sent.body) == (start, body)
    ours = dict(sent.headers)
    assert ours[b"host"] == b"127.0.0.1:%d" % rig.direct_port
    assert ours[b"authorization"] == b"Bearer " + KEY.encode()
    # Each header once, and the length.
    written = {b"host", b"authorization", b"content-length"}
    assert without(sent, written) == kept
    count = len(sent.headers) - len(kept)
    assert count == 2 + (b"content-length" in ours)


def assert_came_down(direct: Message, received: Message) -> None:
    status, kept, body = down(direct)
    assert (received.status, received.body) == (status, body)
    framing = {b"transfer-encoding", b"connection"}
    if direct.status >= 400 and b"content-length" not in dict(direct.headers):
        # An error's body is read completely and sent with its length.
        framing |= {b"content-length"}
        length = dict(received.headers).get(b"content-length", b"0")
        assert length == b"%d" % len(body)
    assert without(received, OURS | framing) == kept
    assert {name for name, _ in received.headers} >= OURS
