"""Batches of events written to SQLite."""

from pathlib import Path
from typing import Any

import pytest

from libs.common.contracts.events import (
    Outcome,
    StreamedEvent,
)
from libs.common.store.interface import (
    Unstorable,
)
from libs.common.store.sqlite.store import SqliteStore
from tests.support.databases.sqlite import BATCH, fetched
from tests.support.values.telemetry import (
    request_event,
    stored_request,
)

pytestmark = pytest.mark.asyncio


async def test_a_batch_is_stored_and_a_replay_changes_nothing(
    path: Path, store: SqliteStore
) -> None:
    assert await store.write(BATCH) == 4
    assert await store.write(BATCH) == 0
    assert await store.write(tuple(reversed(BATCH))) == 0
    row = await store.request("req-1")
    assert row is not None
    assert [d["reason"] for d in row["decisions"]] == ["weighted_least_connections"]
    assert row["decisions"][0]["degraded"] is False
    assert row["decisions"][0]["candidates"][0]["resource"] == "openai-1"
    query = "SELECT requests, total_tokens FROM sessions"
    assert fetched(path, query) == [(1, 7)]
    assert (await store.counts()).requests == 1


async def test_of_a_batch_that_is_stored_in_part_the_rest_is_new(
    store: SqliteStore,
) -> None:
    await store.write([stored_request("a")])
    assert await store.write([stored_request("a"), stored_request("b")]) == 1
    assert (await store.counts()).requests == 2


async def test_nothing_is_stored_of_nothing(store: SqliteStore) -> None:
    assert await store.write([]) == 0


async def test_a_real_outcome_replaces_interrupted_and_never_the_other_way(
    store: SqliteStore,
) -> None:
    lost = stored_request(outcome=Outcome.INTERRUPTED)
    for batch in ([lost], [stored_request()], [lost]):
        await store.write(batch)
    row = await store.request("req-1")
    assert row is not None
    assert row["outcome"] == "completed"
    assert (await store.counts()).requests == 1


@pytest.mark.parametrize("given", [{"input_tokens": 2**70}, {"model": "\ud800"}])
async def test_what_fits_nowhere_is_refused_and_nothing_else_stored(
    store: SqliteStore, given: dict[str, Any]
) -> None:
    event = request_event("bad", **given)
    poison = StreamedEvent("1-0", "bad", "request", event, b"{}")
    with pytest.raises((Unstorable, ValueError)):
        await store.write([*BATCH, poison])
    assert (await store.counts()).requests == 0
    assert await store.write(BATCH) == 4


async def test_a_constraint_that_is_no_replay_is_poison(store: SqliteStore) -> None:
    event = request_event("bad", method=None)
    with pytest.raises(Unstorable, match="method"):
        await store.write([StreamedEvent("1-0", "bad", "request", event, b"{}")])
