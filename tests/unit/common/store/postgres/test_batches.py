"""Batches of events written to PostgreSQL: which statements run, with which values."""

import json
from datetime import UTC, datetime

import psycopg
import pytest

from libs.common.contracts.payloads import Note, Payload
from libs.common.contracts.prices import Price, PriceList
from libs.common.store.postgres.batches import (
    copy_batch,
    copy_bodies,
    merge_batch,
    merge_bodies,
    prepared,
)
from libs.common.store.postgres.calls import copied_time
from libs.common.store.rollups import Rollups
from libs.common.store.rows import instant
from tests.support.databases.statements import FakeConnection
from tests.support.values.telemetry import (
    T0_MS,
    decision_event,
    gateway_event,
    stored_request,
    streamed,
)

pytestmark = pytest.mark.asyncio
BATCH = [
    stored_request(session_id="s", resource_id="one", minted=("x",), gateway_id="gw",
                   proxy_key_id="key_1"),
    streamed(decision_event()),
    streamed(gateway_event("gw")),
]  # fmt: skip
AT = "2023-11-14T22:13:20.123Z"


async def test_new_events_are_copied() -> None:
    connection = FakeConnection()
    assert await copy_batch(connection.typed, prepared(BATCH, Rollups())) == 3
    assert connection.ran == [
        "lock_writers", "add_events", "add_requests", "add_decisions",
        "add_minted_ids", "add_batch",
    ]  # fmt: skip
    added = connection.values["add_batch"]
    assert added["fresh"] == 1
    # Zeros are left out.
    assert json.loads(added["put_sessions"]) == [
        {"id": "s", "first_seen_at": AT, "last_seen_at": AT, "requests": 1,
         "last_resource_id": "one"}
    ]  # fmt: skip
    assert json.loads(added["touch_proxy_keys"]) == [
        {"id": "key_1", "last_used_at": AT}
    ]
    assert [row["step_seconds"] for row in json.loads(added["put_rollups"])] == [
        60,
        900,
    ]
    # Requests and decisions have their own tables.
    for table in ("events", "requests", "decisions"):
        assert len(connection.copied[f"add_{table}"].rows) == 1


async def test_bodies_are_copied_in_the_order_of_their_key() -> None:
    """Otherwise two writers of the same rows could deadlock."""
    connection = FakeConnection()
    bodies = [
        Payload(id_, T0_MS, Note(1), Note(2), request_body=b"1", response_body=b"2")
        for id_ in ("b", "a")
    ]
    assert await copy_bodies(connection.typed, bodies) == 4
    assert connection.ran == ["lock_partitions", "add_payloads"]
    assert [row[:3] for row in connection.copied["add_payloads"].rows] == [
        (id_, direction, copied_time(T0_MS))
        for id_ in ("a", "b")
        for direction in ("request", "response")
    ]


async def test_bodies_are_merged_in_one_statement() -> None:
    connection = FakeConnection({"put_payloads": 1})
    body = Payload("r", T0_MS, Note(1), request_body=b"b")
    assert await merge_bodies(connection.typed, [body]) == 1
    assert connection.ran == ["lock_partitions", "put_payloads"]
    assert connection.values["put_payloads"]["body"] == [b"b"]


async def test_nothing_adds_up_of_events_without_requests() -> None:
    connection = FakeConnection()
    batch = prepared([streamed(decision_event())], Rollups())
    await copy_batch(connection.typed, batch)
    assert connection.ran == ["lock_writers", "add_decisions"]


async def test_a_cost_of_nothing_is_not_no_cost() -> None:
    rollups, connection = Rollups(), FakeConnection()
    since = datetime(2020, 1, 1, tzinfo=UTC)
    rollups.prices = PriceList([Price("free", since, 0.0, 0.0, 0.0)])
    used = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    batch = [stored_request("a", model="free", **used)]
    batch.append(stored_request("b", model="odd", **used))
    await copy_batch(connection.typed, prepared(batch, rollups))
    rows = json.loads(connection.values["add_batch"]["put_rollups"])
    costs = {row["model"]: row.get("cost") for row in rows}
    assert costs == {"free": 0.0, "odd": None}


async def test_a_copy_of_stored_events_raises() -> None:
    replayed = psycopg.errors.UniqueViolation("duplicate key")
    connection = FakeConnection({"add_requests": replayed})
    with pytest.raises(psycopg.errors.UniqueViolation):
        await copy_batch(connection.typed, prepared(BATCH, Rollups()))


async def test_a_merge_asks_for_stored_requests_first() -> None:
    added = {"put_events": 1, "put_requests": 1, "put_minted_ids": 1}
    connection = FakeConnection(added)
    assert await merge_batch(connection.typed, BATCH, Rollups()) == 2
    assert connection.ran == [
        "lock_writers", "known_requests", "put_events", "put_requests",
        "put_decisions", "put_minted_ids", "add_batch",
    ]  # fmt: skip


async def test_a_merge_of_a_stored_request_counts_nothing() -> None:
    row = {
        "id": "req-1", "created_at": instant(T0_MS), "session_id": None,
        "outcome": "completed", "total_tokens": 1,
        "resource_id": None, "proxy_key_id": None,
    }  # fmt: skip
    connection = FakeConnection({"known_requests": [row]})
    assert await merge_batch(connection.typed, [stored_request()], Rollups()) == 0
    assert connection.ran == ["lock_writers", "known_requests"]


async def test_an_interrupted_request_is_deleted_before_the_real_one_is_added() -> None:
    row = {
        "id": "req-1", "created_at": instant(T0_MS), "session_id": None,
        "outcome": "interrupted", "total_tokens": None,
        "resource_id": None, "proxy_key_id": None,
    }  # fmt: skip
    connection = FakeConnection({"known_requests": [row], "put_requests": 1})
    assert await merge_batch(connection.typed, [stored_request()], Rollups()) == 1
    assert connection.ran == [
        "lock_writers", "known_requests", "drop_interrupted", "put_requests",
        "add_batch",
    ]  # fmt: skip
    assert connection.values["add_batch"]["fresh"] == 0
    at = instant(T0_MS)
    values = {"ids": ["req-1"], "oldest": at, "newest": at}
    assert connection.values["drop_interrupted"] == values
