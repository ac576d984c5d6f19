"""Opens sockets to upstreams: the upgrade request, and what each answer means."""

import asyncio
from typing import cast

import pytest
from websockets.asyncio.client import ClientConnection

from libs.common.headers import Header
from services.gateway.routing.target import Target
from services.gateway.upstream.connector import Dialer
from services.gateway.upstream.errors import Broken, NoKey, NotSent, Slow, UpstreamError
from services.gateway.upstream.origin import Origin
from services.gateway.websocket.upstream import (
    OPEN_TIMEOUT_S,
    Opened,
    Opener,
    UpgradeRefused,
)
from tests.support.clients.websocket_peer import Upstream
from tests.support.memory.clock import clock, settled, timeless
from tests.support.memory.twin import resource
from tests.support.memory.upstreams import Wires

TARGET = Target(
    resource("a"),
    Origin("https", "a.test", 443),
    b"a.test",
    b"/v1",
    b"authorization: Bearer sk-a",
    ((b"authorization", b"Bearer sk-a"),),
)
PATH = b"/responses?x=y"


def opening(
    wires: Wires, *headers: Header, target: Target = TARGET
) -> "asyncio.Task[ClientConnection]":
    opener = Opener(cast(Dialer, wires), 3.0)
    return asyncio.create_task(opener.open(target, PATH, headers))


async def asked(*headers: Header) -> tuple["asyncio.Task[ClientConnection]", Upstream]:
    wires = Wires()
    task = opening(wires, *headers)
    await settled()
    return task, Upstream(wires.wires[0])


@timeless
async def test_an_upgrade_has_the_resources_key_and_the_clients_headers() -> None:
    task, upstream = await asked(
        (b"authorization", b"Bearer theirs"),
        (b"sec-websocket-protocol", b"openai-insecure-api-key.sk-theirs"),
        (b"x-proxy-pool", b"p"),
        (b"user-agent", b"codex"),
        (b"openai-beta", "grüße".encode()),
    )
    headers = {n.lower(): v for n, v in upstream.upgrade.headers.raw_items()}
    assert upstream.upgrade.path == "/v1/responses?x=y"
    assert headers["host"] == "a.test"
    assert headers["authorization"] == "Bearer sk-a"
    assert headers["user-agent"] == "codex"
    assert "x-proxy-pool" not in headers
    assert "sec-websocket-protocol" not in headers
    assert "sec-websocket-extensions" not in headers  # no compression
    upstream.accepts(openai_organization="org-1")
    connection = await task
    opened = Opened(connection, TARGET)
    assert (b"openai-organization", b"org-1") in opened.headers
    connection.transport.abort()


@timeless
async def test_messages_pass_both_ways() -> None:
    task, upstream = await asked()
    upstream.accepts()
    connection = await task
    await connection.send("[1]")
    assert upstream.hears() == [[1]]
    upstream.says({"type": "x"})
    assert await connection.recv() == '{"type": "x"}'
    connection.transport.abort()


@pytest.mark.parametrize("status", [200, 301, 401, 429, 503])
@timeless
async def test_any_other_status_is_a_refusal_and_redirects_are_not_followed(
    status: int,
) -> None:
    task, upstream = await asked()
    upstream.refuses(status, b'{"error":{}}', location="http://evil.test/")
    with pytest.raises(UpgradeRefused) as refused:
        await task
    assert (refused.value.status, refused.value.body) == (status, b'{"error":{}}')
    assert (b"location", b"http://evil.test/") in refused.value.headers


@timeless
async def test_a_101_for_another_protocol_is_broken() -> None:
    task, upstream = await asked()
    upstream.wire.feed(b"HTTP/1.1 101 X\r\nupgrade: other\r\n\r\n")
    with pytest.raises(Broken, match="the upgrade failed"):
        await task


@timeless
async def test_a_lost_connection_is_an_upstream_error() -> None:
    task, upstream = await asked()
    upstream.wire.hangs_up()
    with pytest.raises(UpstreamError):
        await task


@timeless
async def test_an_upgrade_without_an_answer_times_out() -> None:
    began = clock().time()
    task, _ = await asked()
    with pytest.raises(Slow):
        await task
    assert clock().time() - began == pytest.approx(OPEN_TIMEOUT_S)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(OSError("no route"), NotSent), (NotSent("refused"), NotSent)],
)
@timeless
async def test_a_failed_connection_was_sent_nothing(
    error: Exception, kind: type[Exception]
) -> None:
    wires = Wires()
    wires.error = error
    with pytest.raises(kind, match=str(error)):
        await opening(wires)


@timeless
async def test_a_target_without_a_key_is_not_dialed() -> None:
    wires = Wires()
    keyless = Target(TARGET.resource, TARGET.origin, b"a.test", b"/v1", b"")
    with pytest.raises(NoKey):
        await opening(wires, target=keyless)
    assert wires.dialled == []
