"""The outcome of a request from its answer, and the verdict on its resource."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from libs.common.headers import Header
from libs.common.routing.types import digest
from services.gateway.proxy.context import Exchange
from services.gateway.proxy.outcome import note_answer
from services.gateway.proxy.relay import Relay, Torn
from services.gateway.server.connection import Connection
from services.gateway.server.request import Request
from services.gateway.upstream.response import Answer, Interrupted
from tests.support.memory.clock import settled, timeless
from tests.support.memory.sites import OpenSite
from tests.support.memory.transports import Wire

JSON: Header = (b"content-type", b"application/json")
SSE: Header = (b"content-type", b"text/event-stream")
BODY = b'{"id":"resp_1","object":"response","output":[{"id":"msg_1"}]}'
CREATED = (
    b'data: {"type":"response.created",'
    b'"response":{"id":"resp_1","object":"response"}}\n\n'
)


def event(kind: str, code: str | None = None) -> bytes:
    error = f',"error":{{"code":"{code}"}}' if code else ""
    return (
        f'event: {kind}\ndata: {{"type":"{kind}","response":{{"id":"resp_1",'
        f'"object":"response"{error}}}}}\n\n'
    ).encode()


class Source:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()

    def rest(self) -> None: ...
    def read_on(self) -> None: ...
    def abort(self) -> None: ...
    def end_within(self, seconds: float) -> None: ...


class Site(OpenSite):
    """One request whose answer is relayed."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.relay: Relay | None = None
        self._answer = answer

    async def _serve(self, connection: Connection) -> None:
        self.relay = Relay(self._answer, connection, lambda: None)
        try:
            await self.relay.run(b"")
        except Torn:
            pass
        finally:
            connection.over()

    def serve(
        self, request: Request, connection: Connection
    ) -> Coroutine[Any, Any, None]:
        return self._serve(connection)


async def relayed(header: Header, body: bytes, status: int, *, breaks: bool) -> Relay:
    answer = Answer(Source(), status, [header])
    site = Site(answer)
    wire = Wire(Connection(site, asyncio.get_running_loop()))
    wire.feed(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    await settled()
    answer.feed(body, last=not breaks)
    if breaks:
        answer.fail(Interrupted("x"))
    await settled()
    assert site.relay is not None
    return site.relay


@pytest.mark.parametrize(
    ("header", "body", "status", "breaks", "outcome", "verdict"),
    [
        pytest.param(JSON, BODY, 200, False, "completed", "ok", id="JSON"),
        pytest.param(JSON, BODY[:9], 200, True, "failed", "fault", id="JSON, cut"),
        pytest.param(JSON, b"{}", 400, False, "failed", "neutral", id="400"),
        pytest.param(JSON, b"{", 400, True, "failed", "neutral", id="400, cut"),
        pytest.param(
            SSE, CREATED + event("response.completed"), 200, False, "completed", "ok",
            id="completed",
        ),
        pytest.param(
            SSE, CREATED + event("response.incomplete"), 200, False, "completed", "ok",
            id="incomplete",
        ),
        pytest.param(
            SSE, CREATED + event("response.failed", "server_error"), 200, False,
            "failed", "fault", id="failed",
        ),
        pytest.param(
            SSE, CREATED + event("response.failed", "rate_limit_exceeded"), 200, False,
            "failed", "limited", id="failed, limited",
        ),
        pytest.param(
            SSE, CREATED + event("response.failed", "invalid_prompt"), 200, False,
            "failed", "neutral", id="failed, the client's",
        ),
        pytest.param(SSE, CREATED, 200, False, "failed", "fault", id="without an end"),
        pytest.param(SSE, CREATED, 200, True, "failed", "fault", id="stream, cut"),
    ],
)  # fmt: skip
@timeless
async def test_an_answers_end_is_an_outcome_and_a_verdict(
    header: Header, body: bytes, status: int, breaks: bool, outcome: str, verdict: str
) -> None:
    relay = await relayed(header, body, status, breaks=breaks)
    exchange = Exchange(Request("POST", b"/v1/responses", []), "gw")
    note_answer(exchange, relay)
    assert exchange.record.outcome == outcome
    assert exchange.verdict.kind == verdict
    assert exchange.record.status_code == status
    assert exchange.record.transport == ("sse" if header is SSE else "http")
    assert exchange.record.response_bytes == len(body)


@pytest.mark.parametrize("before", ["cancelled", "interrupted"])
@timeless
async def test_who_ended_it_before_its_end_is_to_blame(before: str) -> None:
    relay = await relayed(SSE, CREATED, 200, breaks=True)
    exchange = Exchange(Request("POST", b"/v1/responses", []), "gw")
    exchange.record.outcome = before
    note_answer(exchange, relay)
    assert exchange.record.outcome == before
    assert exchange.verdict.kind == "neutral"


@timeless
async def test_a_client_that_leaves_after_the_end_has_completed() -> None:
    relay = await relayed(SSE, event("response.completed"), 200, breaks=False)
    exchange = Exchange(Request("POST", b"/v1/responses", []), "gw")
    exchange.record.outcome = "cancelled"
    note_answer(exchange, relay)
    assert (exchange.record.outcome, exchange.verdict.kind) == ("completed", "ok")


@timeless
async def test_a_client_that_did_not_read_says_nothing_of_the_resource() -> None:
    relay = await relayed(JSON, BODY, 200, breaks=False)
    exchange = Exchange(Request("POST", b"/v1/responses", []), "gw")
    exchange.stalled = True
    note_answer(exchange, relay)
    record = exchange.record
    assert (record.outcome, record.error_code) == ("failed", "client_stalled")
    assert exchange.verdict.kind == "neutral"


@pytest.mark.parametrize(
    ("status", "learned"),
    [(200, (digest("resp_1"), digest("msg_1"))), (400, ())],
)
@timeless
async def test_ids_are_learned_from_what_was_made(
    status: int, learned: tuple[str, ...]
) -> None:
    relay = await relayed(JSON, BODY, status, breaks=False)
    exchange = Exchange(Request("POST", b"/v1/responses", []), "gw")
    assert note_answer(exchange, relay) == learned
    assert len(exchange.record.minted) == len(learned)


@timeless
async def test_an_earlier_attempts_error_is_forgotten() -> None:
    relay = await relayed(JSON, BODY, 200, breaks=False)
    exchange = Exchange(Request("POST", b"/v1/responses", []), "gw")
    exchange.record.error_code = exchange.record.error_message = "of a 429"
    note_answer(exchange, relay)
    record = exchange.record
    assert (record.error_code, record.error_message) == (None, None)
