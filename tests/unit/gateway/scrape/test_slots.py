"""Memory that workers share."""

import os
from collections.abc import Iterator

import pytest

from services.gateway.scrape import slots
from services.gateway.scrape.slots import HALF_BYTES, PAGE, Slots


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = slots.create()
    yield descriptor
    os.close(descriptor)


def test_each_worker_reads_what_the_others_wrote(memory: int) -> None:
    first, second = Slots(memory, 0, 3), Slots(memory, 1, 3)
    assert list(first.others()) == [(1, b""), (2, b"")]
    for text in (b"one", b"a longer one", b"two"):
        assert second.write(text)
        assert dict(first.others())[1] == text
        assert second.read(1) == text
    assert first.write(b"x")
    assert dict(second.others()) == {0: b"x", 2: b""}


def test_what_does_not_fit_changes_nothing(memory: int) -> None:
    slot = Slots(memory, 0, 1)
    assert slot.write(b"before")
    assert not slot.write(b"x" * HALF_BYTES)
    assert slot.read(0) == b"before"


def test_a_worker_that_died_while_it_wrote_leaves_what_was_before(memory: int) -> None:
    slot = Slots(memory, 0, 1)
    assert slot.write(b"first")  # in half 1
    assert slot.write(b"second")  # in half 0
    os.pwrite(memory, b"garbage", PAGE + HALF_BYTES)  # half 1, and no header
    assert slot.read(0) == b"second"


def test_a_damaged_half_is_not_read(memory: int) -> None:
    slot = Slots(memory, 0, 1)
    assert slot.write(b"first")
    os.pwrite(memory, b"garbage garbage", PAGE + HALF_BYTES)
    assert slot.read(0) == b""


def test_a_worker_learns_its_slot_from_its_environment() -> None:
    told = slots.environment(9, 2, 4)
    assert slots.inherited(told) == Slots(9, 2, 4)
    assert slots.inherited({}) is None


def test_without_memory_files_it_is_an_unnamed_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    descriptor = slots.create()
    try:
        assert os.fstat(descriptor).st_nlink == 0
        assert Slots(descriptor, 0, 1).write(b"x")
    finally:
        os.close(descriptor)
