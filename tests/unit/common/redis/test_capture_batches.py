"""Packing the bodies of many requests into one entry, and unpacking them."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts.payloads import Note, Payload
from libs.common.redis import capture_batches
from libs.common.redis.capture_batches import (
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


def test_an_entry_is_read_as_it_was_written() -> None:
    sent = [payload("a", 3), Payload("b", 2, None, Note(9, dropped="no room"))]
    fields = as_redis_gives(packed(sent))
    assert (fields[b"kind"], fields[b"v"]) == (b"payloads", b"1")
    assert unpacked(fields[b"data"]) == sent


@given(data=st.binary(max_size=60))
def test_whatever_cannot_be_read_is_an_error(data: bytes) -> None:
    try:
        assert isinstance(unpacked(data), list)
    except ValueError:
        return


def test_an_entry_that_nests_without_end_is_an_error() -> None:
    # One payload, with a field of a later version that is an array of arrays.
    nested = b"\x91\x97\xa1a\x01\xc0\xc0\xc0\xc0" + b"\x91" * 1_000_000 + b"\xc0"
    with pytest.raises(ValueError, match="nested too deeply"):
        unpacked(nested)
