"""Packing the bodies of many requests into one entry, and unpacking them."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts.events import PayloadEvent
from libs.common.redis import capture_batches
from libs.common.redis.capture_batches import (
    Note,
    Payload,
    batches,
    packed,
    unpacked,
    writes,
)
from tests.support.values.telemetry import as_redis_gives

SIZES = st.lists(st.integers(0, 300), max_size=40)


def payload(id_: str, size: int = 0) -> Payload:
    return Payload(id_, 1, Note(size, "text/plain"), None, b"x" * size)


@given(sizes=SIZES)
def test_all_travel_in_order_in_batches_of_a_bounded_size(sizes: list[int]) -> None:
    payloads = [payload(str(n), size) for n, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capture_batches, "BATCH_BYTES", 1_000)
        found = list(batches(payloads))
    assert list(chain.from_iterable(found)) == payloads
    assert all(len(b) == 1 or sum(p.size for p in b) <= 1_000 for b in found)
    assert all(found)


@given(sizes=SIZES)
def test_entries_travel_in_order_in_writes_of_a_bounded_size(sizes: list[int]) -> None:
    entries = [[payload(str(n), size)] for n, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capture_batches, "WRITE_BYTES", 1_000)
        found = list(writes(iter(entries)))
    assert list(chain.from_iterable(found)) == entries
    assert all(len(r) == 1 or sum(b[0].size for b in r) <= 1_000 for r in found)
    assert all(found)


def test_each_is_an_entry_of_its_own_again() -> None:
    sent = [payload("a", 3), Payload("b", 2, None, Note(9, dropped="no room"))]
    one, other = unpacked(as_redis_gives(packed(sent)))
    assert one == {
        b"kind": b"payload",
        b"id": b"a",
        b"v": b"1",
        b"request": b"xxx",
        b"data": one[b"data"],
    }
    read = PayloadEvent.model_validate_json(other[b"data"])
    assert (read.request_id, read.created_at_ms, read.request) == ("b", 2, None)
    assert read.response is not None
    assert read.response.dropped == "no room"


def test_an_entry_of_another_kind_is_itself() -> None:
    fields = {b"kind": b"payload", b"id": b"a", b"data": b"{}"}
    assert unpacked(fields) == (fields,)


@given(data=st.binary(max_size=60))
def test_whatever_cannot_be_read_is_left_without_its_content(data: bytes) -> None:
    fields = {b"kind": b"payloads", b"v": b"1", b"id": b"x", b"data": data}
    found = unpacked(fields)
    read = all(part[b"kind"] == b"payload" for part in found)
    assert read or found == ({b"kind": b"payloads", b"v": b"1"},)
