"""Requests for models, through a gateway in memory."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from libs.common.contracts.catalogue import Alias
from libs.common.headers import Header
from libs.common.proxy_keys import Policy, Principal
from libs.common.routing.budgets import LEFT
from libs.common.routing.types import Decision
from tests.support.memory.clock import settled, timeless
from tests.support.memory.plane import Client, World, answer, error
from tests.support.memory.requests import KEY, asked, one_row
from tests.support.memory.twin import Twin, resource

ALIAS = Alias(alias="fast", provider_id="local", upstream_id="m-8b")
LIST = json.dumps(
    {"object": "list", "data": [{"id": n, "object": "model"} for n in ("m-1", "o-1")]}
).encode()
GET = b"GET /v1/models"
GZIP: Header = (b"content-encoding", b"gzip")


@pytest.fixture
def twin() -> Twin:
    return Twin(resource("a", provider_id="local"), resource("b"), aliases=(ALIAS,))


async def world_of(root: Path, twin: Twin, **key: Any) -> World:
    world = World(root, twin)
    if key:
        world.table.put(Principal(id="k1", **key))
    await world.refreshed()
    return world


def shown(client: Client) -> list[str]:
    return [model["id"] for model in json.loads(client.body)["data"]]


HIDING = {"policies": (Policy(models=("m-*",)),)}


@timeless
async def test_anybody_sees_the_list_and_aliases(tmp_path: Path, twin: Twin) -> None:
    client, upstream = await asked(
        await world_of(tmp_path, twin), b"", (b"accept-encoding", b"gzip"), line=GET
    )
    assert b"accept-encoding: identity\r\n" in upstream.sent
    upstream.feed(answer(LIST, (b"etag", b'"1"'), (b"x-request-id", b"r")))
    await settled()
    assert shown(client) == ["m-1", "o-1", "fast"]
    assert b"etag" not in client.head
    assert client.head[b"x-request-id"] == b"r"
    assert client.head[b"x-proxy-attempts"] == b"1"
    assert int(client.head[b"content-length"]) == len(client.body)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@timeless
async def test_a_key_sees_what_its_policy_allows_of_a_compressed_list(
    tmp_path: Path, twin: Twin, coding: str
) -> None:
    packed = gzip.compress(LIST) if coding == "gzip" else zstandard.compress(LIST)
    world = await world_of(tmp_path, twin, **HIDING)
    client, upstream = await asked(world, b"", KEY, line=GET)
    whole = answer(packed, (b"content-encoding", coding.encode()))
    for byte in whole:
        upstream.feed(bytes([byte]))
    await settled()
    assert shown(client) == ["m-1", "fast"]
    assert b"content-encoding" not in client.head
    row = await one_row(world)
    assert (row["outcome"], row["status_code"]) == ("completed", 200)
    assert row["response_bytes"] == len(client.body)


@timeless
async def test_without_aliases_and_policies_every_byte_passes(tmp_path: Path) -> None:
    world = await world_of(tmp_path, Twin(resource("a")))
    client, upstream = await asked(world, b"", line=GET)
    body = b'{ "data" : [ ] }'
    upstream.feed(answer(body, (b"etag", b'"1"')))
    await settled()
    assert (client.body, client.head[b"etag"]) == (body, b'"1"')


@pytest.mark.parametrize(
    ("body", "headers", "cause"),
    [
        pytest.param(b"[]", (), "unknown format", id="no list"),
        pytest.param(b"\x1f\x8b", (GZIP,), "unknown format", id="cut"),
        pytest.param(b"xxxx", (GZIP,), "decompressed", id="not in its coding"),
        pytest.param(b"x", ((b"content-encoding", b"br"),), "decompressed", id="br"),
        pytest.param(b" " * 2_097_153, (), "too large", id="large"),
        pytest.param(gzip.compress(b" " * 2_097_153), (GZIP,), "decomp", id="bomb"),
    ],
)
@timeless
async def test_a_list_that_cannot_be_read_is_not_shown_to_a_key_with_a_policy(
    tmp_path: Path, twin: Twin, body: bytes, headers: tuple[Header, ...], cause: str
) -> None:
    world = await world_of(tmp_path, twin, **HIDING)
    client, upstream = await asked(world, b"", KEY, line=GET)
    upstream.feed(answer(body, *headers))
    await settled()
    assert (client.status, client.code) == (502, "models_unreadable")
    assert cause in json.loads(client.body)["error"]["message"]
    row = await one_row(world)
    assert (row["outcome"], row["error_code"]) == ("failed", "models_unreadable")


@timeless
async def test_another_format_passes_where_nothing_is_hidden(
    tmp_path: Path, twin: Twin
) -> None:
    client, upstream = await asked(await world_of(tmp_path, twin), b"", line=GET)
    upstream.feed(answer(b'[{"id":"m-1"}]'))
    await settled()
    assert (client.status, client.body) == (200, b'[{"id":"m-1"}]')


@timeless
async def test_an_error_of_the_upstream_passes(tmp_path: Path, twin: Twin) -> None:
    world = await world_of(tmp_path, twin, **HIDING)
    client, upstream = await asked(world, b"", KEY, line=GET)
    upstream.feed(error(400, "odd"))
    await settled()
    assert (client.status, client.code) == (400, "odd")


@timeless
async def test_a_list_that_breaks_off_is_asked_for_elsewhere(
    tmp_path: Path, twin: Twin
) -> None:
    world = await world_of(tmp_path, twin, **HIDING)
    client, upstream = await asked(world, b"", KEY, line=GET)
    upstream.feed(answer(LIST)[:-5])
    upstream.hangs_up()
    await settled()
    assert len(world.upstreams) == 2
    world.upstreams[1].feed(answer(LIST))
    await settled()
    assert shown(client) == ["m-1", "fast"]
    assert (await one_row(world))["attempts"] == 2


@timeless
async def test_a_client_that_leaves_gives_its_lease_back(
    tmp_path: Path, twin: Twin
) -> None:
    world = await world_of(tmp_path, twin, **HIDING)
    client, upstream = await asked(world, b"", KEY, line=GET)
    upstream.feed(answer(LIST)[:-5])
    await settled()
    client.wire.hangs_up()
    assert (await one_row(world))["outcome"] == "cancelled"
    assert upstream.aborted


@timeless
async def test_a_head_request_has_no_length_of_another_list(
    tmp_path: Path, twin: Twin
) -> None:
    world = await world_of(tmp_path, twin, **HIDING)
    client, upstream = await asked(world, b"", KEY, line=b"HEAD /v1/models")
    upstream.feed(answer(LIST)[: -len(LIST)])
    await settled()
    assert (client.status, client.body) == (200, b"")
    assert b"content-length" not in client.head


@timeless
async def test_an_alias_is_described_without_the_upstream(
    tmp_path: Path, twin: Twin
) -> None:
    world = await world_of(tmp_path, twin)
    client = world.client()
    await client.asks(b"", line=b"GET /v1/models/fast")
    assert world.upstreams == []
    assert json.loads(client.body)["id"] == "fast"
    assert client.head[b"x-proxy-attempts"] == b"0"
    row = await one_row(world)
    assert (row["outcome"], row["status_code"]) == ("completed", 200)
    assert row["response_bytes"] == len(client.body)


@timeless
async def test_a_model_that_a_key_may_not_use_is_not_there(
    tmp_path: Path, twin: Twin
) -> None:
    world = await world_of(tmp_path, twin, **HIDING)
    client = world.client()
    await client.asks(b"", KEY, line=b"GET /v1/models/o-1")
    assert world.upstreams == []
    assert (client.status, client.code) == (404, "model_not_found")
    assert json.loads(client.body)["error"] == {
        "message": "The model 'o-1' does not exist or you do not have access to it.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    assert (await one_row(world))["error_code"] == "model_not_found"


@timeless
async def test_another_model_is_the_upstreams(tmp_path: Path, twin: Twin) -> None:
    world = await world_of(tmp_path, twin, **HIDING)
    client, upstream = await asked(world, b"", KEY, line=b"GET /v1/models/m-1")
    body = b'{"id": "m-1"}'
    upstream.feed(answer(body))
    await settled()
    assert client.body == body


@timeless
async def test_a_key_with_limits_sees_its_own_not_the_accounts(
    tmp_path: Path, twin: Twin
) -> None:
    world = await world_of(tmp_path, twin, requests_per_minute=9, **HIDING)
    twin.says.append(Decision("a", "panic", "v2", left=LEFT[0].pack(1, 0)))
    client, upstream = await asked(world, b"", KEY, line=GET)
    theirs = b"x-ratelimit-remaining-tokens", b"12345"
    upstream.feed(answer(LIST, theirs, (b"x-request-id", b"r")))
    await settled()
    assert shown(client) == ["m-1", "fast"]
    told = {name: v for name, v in client.head.items() if b"ratelimit" in name}
    assert told == {
        b"x-ratelimit-limit-requests": b"9",
        b"x-ratelimit-remaining-requests": b"8",
        b"x-ratelimit-reset-requests": b"65s",
    }
    assert client.head[b"x-request-id"] == b"r"
    assert int(client.head[b"content-length"]) == len(client.body)
