"""Responses are framed for the request they answer, and how far they got is known."""

import pytest

from libs.common.headers import Header
from services.gateway.server.framing import CONTINUE, WHOLE_WRITE
from services.gateway.server.request import Request
from services.gateway.server.response_writer import Progress, ResponseWriter
from tests.support.memory.clock import timeless
from tests.support.memory.transports import Wire

LENGTH: Header = (b"content-length", b"4")


class Site:
    draining = False


class Talk:
    """A request, and the wire its response is written to."""

    def __init__(
        self, method: str = "GET", *, http_1_0: bool = False, draining: bool = False
    ) -> None:
        site = Site()
        site.draining = draining
        self.request = Request(method, b"/", [])
        self.request.http_1_0 = http_1_0
        self.writer = ResponseWriter(site)
        self.writer.request = self.request
        self.wire = Wire()
        self.writer.write = self.wire.write


@pytest.mark.parametrize(
    ("talk", "status", "headers", "lines", "body"),
    [
        pytest.param({}, 200, [LENGTH], b"", b"abcd", id="of a length"),
        pytest.param(
            {}, 200, [], b"transfer-encoding: chunked\r\n",
            b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n", id="chunked",
        ),
        pytest.param(
            {"http_1_0": True}, 200, [], b"connection: close\r\n", b"abcd", id="1.0"
        ),
        pytest.param(
            {"http_1_0": True}, 200, [LENGTH], b"connection: keep-alive\r\n", b"abcd",
            id="1.0, of a length",
        ),
        pytest.param(
            {"draining": True}, 200, [LENGTH], b"connection: close\r\n", b"abcd",
            id="while we drain",
        ),
        pytest.param({"method": "HEAD"}, 200, [], b"", b"", id="to HEAD"),
        pytest.param({}, 204, [], b"", b"", id="204"),
        pytest.param({}, 404, [LENGTH], b"", b"abcd", id="an error"),
    ],
)  # fmt: skip
@timeless
async def test_a_relayed_response_ends_as_its_client_can_tell(
    talk: dict[str, object],
    status: int,
    headers: list[Header],
    lines: bytes,
    body: bytes,
) -> None:
    case = Talk(**talk)  # type: ignore[arg-type]
    head = case.writer.begin(status, headers, b"x-proxy-a: b\r\n")
    case.writer.send(head, b"ab", last=False)
    case.writer.send(b"", b"cd", last=True)
    sent_head, _, sent_body = case.wire.sent.partition(b"\r\n\r\n")
    upstreams = b"".join(b"%b: %b\r\n" % header for header in headers)
    expected = upstreams + b"x-proxy-a: b\r\n" + lines
    assert sent_head.partition(b"\r\n")[2] + b"\r\n" == expected
    assert sent_body == body
    assert case.request.keep_alive is not (lines == b"connection: close\r\n")


@timeless
async def test_a_browser_is_told_who_may_read() -> None:
    case = Talk()
    case.request.cors = b"access-control-allow-origin: o\r\n"
    assert case.request.cors in case.writer.begin(200, [LENGTH], b"")
    case.writer.send_whole(200, [], b"")
    assert case.request.cors in case.wire.sent


@timeless
async def test_progress_follows_what_was_written() -> None:
    case = Talk()
    writer = case.writer
    seen = [writer.progress]
    head = writer.begin(200, [], b"")
    seen.append(writer.progress)
    writer.send(head, b"", last=False)
    seen.append(writer.progress)
    writer.send(b"", b"", last=True)
    seen.append(writer.progress)
    assert seen == [Progress.NONE, Progress.NONE, Progress.BEGUN, Progress.ENDED]


@pytest.mark.parametrize(("size", "writes"), [(10, 1), (WHOLE_WRITE + 1, 2)])
@timeless
async def test_a_large_piece_is_not_copied(size: int, writes: int) -> None:
    case = Talk()
    head = case.writer.begin(200, [LENGTH], b"")
    case.writer.send(head, b"b" * size, last=False)
    assert len(case.wire.writes) == writes
    case.writer.send(b"", b"b" * size, last=False)
    assert len(case.wire.writes) == writes + 1
    case.writer.send(b"", b"", last=True)
    assert len(case.wire.writes) == writes + 1


@pytest.mark.parametrize(
    ("method", "status", "length", "body"),
    [
        ("GET", 200, b"content-length: 2\r\n", b"ab"),
        ("HEAD", 200, b"content-length: 2\r\n", b""),
        ("GET", 204, b"", b""),
        ("GET", 304, b"", b""),
    ],
)
@timeless
async def test_our_own_responses_have_their_length(
    method: str, status: int, length: bytes, body: bytes
) -> None:
    case = Talk(method)
    case.writer.send_whole(status, [(b"content-length", b"9"), (b"a", b"b")], b"ab")
    head, _, sent = case.wire.sent.partition(b"\r\n\r\n")
    assert head.partition(b"\r\n")[2] + b"\r\n" == b"a: b\r\n" + length
    assert (sent, case.writer.progress) == (body, Progress.ENDED)


@timeless
async def test_without_a_transport_nothing_is_written() -> None:
    case = Talk()
    case.writer.interim(CONTINUE)
    assert case.wire.take() == CONTINUE
    case.writer.write = None
    case.writer.send_whole(200, [], b"late")
    case.writer.interim(CONTINUE)
    assert (case.wire.sent, case.writer.progress) == (b"", Progress.ENDED)
