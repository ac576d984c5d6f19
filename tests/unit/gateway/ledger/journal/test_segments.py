"""Records in segments: complete records are found, incomplete ones are not."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.ledger.journal.segments import (
    HEAD,
    MAGIC,
    RECORD,
    Kind,
    Segment,
    create,
    in_memory,
    read_segments,
)

SIZE = 4096
STAMP = RECORD.size // 2  # where it begins
PAYLOADS = st.lists(
    st.tuples(st.sampled_from(Kind), st.binary(max_size=300)), max_size=30
)


def begun(number: int = 3) -> Segment:
    segment = in_memory(SIZE)
    segment.start(number)
    return segment


@given(payloads=PAYLOADS, number=st.integers(0, (1 << 32) - 1))
def test_what_was_written_is_read_in_order(
    payloads: list[tuple[Kind, bytes]], number: int
) -> None:
    segment = begun(number)
    written = [
        (position, kind, payload)
        for kind, payload in payloads
        if (position := segment.append(kind, payload)) >= 0
    ]
    assert [tuple(record) for record in segment.records()] == written
    for position, kind, payload in written:
        record = segment.record(position)
        assert record is not None
        assert (record.kind, record.payload) == (kind, payload)
        assert next(iter(segment.records(position))) == record
    assert segment.filled <= segment.end


def test_what_does_not_fit_is_not_begun() -> None:
    segment = begun()
    room = SIZE - HEAD.size - RECORD.size
    assert segment.append(Kind.REQUEST, bytes(room + 1)) == -1
    assert list(segment.records()) == []
    assert segment.append(Kind.REQUEST, bytes(room)) == segment.base + HEAD.size
    assert segment.append(Kind.CHECK, b"") == -1


def test_an_id_and_its_data_are_told_apart() -> None:
    segment = begun()
    record = segment.record(segment.append(Kind.REQUEST, b'r1\n{"a":"b\\n"}'))
    assert record is not None
    assert (record.id, record.data) == ("r1", b'{"a":"b\\n"}')


@given(at=st.integers(0, RECORD.size - 1), bit=st.integers(0, 7))
def test_a_torn_record_is_not_there(at: int, bit: int) -> None:
    segment = begun()
    segment.append(Kind.REQUEST, b"whole")
    position = segment.append(Kind.REQUEST, b"x" * 4000)
    offset = position - segment.base
    segment.buffer[offset + at] ^= 1 << bit
    record = segment.record(position)
    if at >= STAMP:
        assert record is None
    else:  # another kind or length: never beyond the segment
        assert record is None or len(record.payload) <= SIZE - offset - RECORD.size


@pytest.mark.parametrize("position", [-1, 0, HEAD.size - 1, SIZE - 3, SIZE, 1 << 60])
def test_outside_there_is_no_record(position: int) -> None:
    segment = begun(0)
    segment.append(Kind.REQUEST, b"x")
    assert segment.record(position) is None


def test_a_segment_that_is_used_again_forgets_its_earlier_life() -> None:
    segment = begun(3)
    for _ in range(10):
        segment.append(Kind.REQUEST, b"old")
    segment.start(4)
    segment.append(Kind.REQUEST, b"new")
    assert [record.payload for record in segment.records()] == [b"new"]


# Files -------------------------------------------------------------------------


def test_files_are_found_in_order(tmp_path: Path) -> None:
    for name, number in (("a.log", 7), ("b.log", 2), ("c.log", 5)):
        segment = create(tmp_path / name, SIZE)
        segment.start(number)
        segment.append(Kind.REQUEST, b"%d" % number)
    assert (tmp_path / "a.log").stat().st_mode & 0o777 == 0o600
    found, corrupt = read_segments(tmp_path)
    assert corrupt == 0
    assert [segment.number for segment in found] == [2, 5, 7]
    contents = [[r.payload for r in segment.records()] for segment in found]
    assert contents == [[b"2"], [b"5"], [b"7"]]


def test_what_holds_nothing_is_passed_over(tmp_path: Path) -> None:
    retired = create(tmp_path / "retired.log", SIZE)
    retired.start(1)
    retired.retire()
    create(tmp_path / "spare.log", SIZE).close()
    (tmp_path / "short.log").write_bytes(MAGIC)
    (tmp_path / "other").write_bytes(MAGIC + bytes(SIZE))
    assert read_segments(tmp_path) == ([], 0)


def test_reading_changes_nothing(tmp_path: Path) -> None:
    segment = create(tmp_path / "a.log", SIZE)
    segment.start(1)
    segment.append(Kind.REQUEST, b"x")
    before = (tmp_path / "a.log").read_bytes()
    ((found,), _) = read_segments(tmp_path)
    found.append(Kind.REQUEST, b"y")
    found.retire()
    assert (tmp_path / "a.log").read_bytes() == before


def test_a_full_disk_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        create(tmp_path / "a.log", SIZE)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("mine")
    with pytest.raises(FileExistsError):
        create(tmp_path / "a.log", SIZE)
    assert (tmp_path / "a.log").read_text() == "mine"
