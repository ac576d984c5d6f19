"""Requests from their arrival to their settlement, which happens once."""

from pathlib import Path

from libs.common.proxy_keys import Principal
from libs.common.routing.types import (
    Decision,
)
from tests.support.memory.clock import settled, timeless
from tests.support.memory.plane import World, answer
from tests.support.memory.requests import (
    COMPLETED,
    CREATED,
    KEY,
    STREAMING,
    asked,
    one_row,
)
from tests.support.memory.twin import Twin, resource


@timeless
async def test_an_answer_names_the_account_of_its_key(tmp_path: Path) -> None:
    twin = Twin(resource("a", account_id="a"))
    world = World(tmp_path, twin)
    for _ in range(2):
        _, upstream = await asked(world)
        upstream.feed(answer(b"{}", (b"openai-organization", b"org-1")))
        await settled()
    assert twin.named == [("a", "org-1")]


@timeless
async def test_a_trial_that_is_answered_frees_the_others_at_once(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    twin.says.append(Decision("a", "weighted_least_connections", "v3", trial=True))
    _, upstream = await asked(world)
    upstream.feed(STREAMING + CREATED)
    await settled()
    (first,) = twin.released
    assert (first.verdict and first.verdict.kind, first.event) == ("ok", None)
    upstream.feed(COMPLETED)
    upstream.hangs_up()
    await settled()
    assert len(twin.released) == 2


@timeless
async def test_a_keys_requests_are_its_own_and_its_tokens_counted(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    world.table.put(Principal(id="k", pool_id="pool", tokens_per_minute=9))
    _, upstream = await asked(world, b'{"model":"m"}', KEY)
    body = (
        b'{"id":"resp_1","object":"response",'
        b'"usage":{"input_tokens":1,"output_tokens":2,"total_tokens":3}}'
    )
    upstream.feed(answer(body))
    row = await one_row(world)
    assert (row["proxy_key_id"], row["pool_id"]) == ("k", "pool")
    assert world.table.spent == [("k", 3)]
