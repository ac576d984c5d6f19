"""A corrupt journal: intact records are still found, damaged ones are counted."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from services.gateway.ledger.journal.journal import Journal
from services.gateway.ledger.journal.recovery import (
    CrashedJournal,
    JournalRecovery,
    read_crashed_journal,
)
from services.gateway.ledger.journal.segments import HEAD, MAGIC_UNCHECKED, RECORD

pytestmark = pytest.mark.asyncio
SMALL = 4096
STARTED_MS = 1_700_000_000_000
EVENT = b'{"id":"%d","text":"\\u0001 and \xc3\xa9"}'
COUNT = 5


def journal(root: Path, gateway_id: str = "dead") -> Journal:
    return Journal(root, gateway_id, STARTED_MS, 1000 * SMALL, SMALL)


def written(root: Path, count: int = COUNT) -> tuple[Journal, list[int]]:
    """A crashed gateway's journal, and where its records are."""
    kept = journal(root)
    at = [kept.ended(f"r{n}", EVENT % n) for n in range(count)]
    at.append(kept.written)
    return kept, at


def ids(crashed: CrashedJournal) -> list[str]:
    return [record.id for record in crashed.events()]


def others(*corrupt: int, count: int = COUNT) -> list[str]:
    return [f"r{n}" for n in range(count) if n not in corrupt]


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def only_file(kept: Journal) -> Path:
    (path,) = kept.folder.path.glob("*.log")
    return path


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
async def test_whichever_byte_is_wrong_only_its_record_is_lost(
    tmp_path: Path, flip: int
) -> None:
    kept, at = written(tmp_path)
    path, base = only_file(kept), kept._current.base
    whole = path.read_bytes()
    for place in range(at[2] - base, at[3] - base):
        overwrite(path, place, bytes([whole[place] ^ flip]))
        crashed = read_crashed_journal(kept.folder.path)
        assert (ids(crashed), crashed.corrupt) == (others(2), 1), place - at[2] + base
        assert dict.fromkeys(r.data for r in crashed.events()) == dict.fromkeys(
            EVENT % n for n in (0, 1, 3, 4)
        )
        crashed.close()
        overwrite(path, place, whole[place : place + 1])
    crashed = read_crashed_journal(kept.folder.path)
    assert (ids(crashed), crashed.corrupt) == (others(), 0)


@pytest.mark.parametrize("length", [0, 1, 40, 0x7FFFFF, 0xFFFFFF])
async def test_a_garbage_length_loses_one_record(tmp_path: Path, length: int) -> None:
    kept, at = written(tmp_path)
    place = at[1] - kept._current.base
    overwrite(only_file(kept), place, length.to_bytes(3, "little"))
    crashed = read_crashed_journal(kept.folder.path)
    assert (ids(crashed), crashed.corrupt) == (others(1), 1)


async def test_a_zeroed_page_loses_what_was_in_it(tmp_path: Path) -> None:
    kept, at = written(tmp_path, count=60)
    base = kept._segments[0].base
    (path,) = [p for p in kept.folder.path.glob("*.log") if p.name == "000000.log"]
    overwrite(path, 512, bytes(1024))
    crashed = read_crashed_journal(kept.folder.path)
    lost = [n for n in range(60) if at[n + 1] - base > 512 and at[n] - base < 1536]
    assert len(lost) > 5
    assert (ids(crashed), crashed.corrupt) == (others(*lost, count=60), 1)


async def test_a_truncated_file_loses_its_tail(tmp_path: Path) -> None:
    """And none of its records is taken for one that is already in SQL."""
    kept, at = written(tmp_path)
    kept.free_before(at[1])
    kept.check()
    os.truncate(only_file(kept), at[4] - kept._current.base)
    crashed = read_crashed_journal(kept.folder.path)
    assert ids(crashed) == ["r0", "r1", "r2", "r3"]  # what is safe was lost with it
    crashed.close()
    overwrite(only_file(kept), at[4] - kept._current.base, b"{}")
    assert ids(read_crashed_journal(kept.folder.path)) == ["r0", "r1", "r2", "r3"]


async def test_a_truncated_file_keeps_its_place(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    for number in range(300):
        kept.ended(f"r{number}", EVENT % number)
    end = kept._segments[0].filled
    kept.free_before(end)  # the first is given up
    kept.check()
    for path in kept.folder.path.glob("*.log"):
        os.truncate(path, SMALL - 100)
    left = ids(read_crashed_journal(kept.folder.path))
    assert "r299" in left
    assert "r0" not in left


@pytest.mark.parametrize("place", range(8))
async def test_a_segment_without_its_head_is_counted(
    tmp_path: Path, place: int
) -> None:
    kept, _ = written(tmp_path)
    overwrite(only_file(kept), place, b"\xee")
    crashed = read_crashed_journal(kept.folder.path)
    assert (ids(crashed), crashed.corrupt) == ([], 1)


@pytest.mark.parametrize("place", range(8, 12))
async def test_a_segment_with_a_wrong_number_is_counted(
    tmp_path: Path, place: int
) -> None:
    kept, _ = written(tmp_path)
    overwrite(only_file(kept), place, b"\xee")
    crashed = read_crashed_journal(kept.folder.path)
    assert (ids(crashed), crashed.corrupt) == ([], 1)


async def test_a_torn_end_is_no_corruption(tmp_path: Path) -> None:
    kept, at = written(tmp_path)
    overwrite(only_file(kept), at[-1] - kept._current.base + RECORD.size, b"torn")
    crashed = read_crashed_journal(kept.folder.path)
    assert (ids(crashed), crashed.corrupt) == (others(), 0)


async def test_what_a_reused_file_holds_of_its_earlier_life_is_no_record(
    tmp_path: Path,
) -> None:
    kept = journal(tmp_path)
    for number in range(300):
        kept.ended(f"r{number}", EVENT % number)
        kept.free_before(kept.written)
    kept.check()
    crashed = read_crashed_journal(kept.folder.path)
    assert (ids(crashed), crashed.corrupt) == ([], 0)


def as_written_by_0_1(folder: Path) -> None:
    """Convert a journal to the format before checksums: another magic, a number of
    eight bytes, stamps of the position alone."""
    for path in folder.glob("*.log"):
        data = bytearray(path.read_bytes())
        number = HEAD.unpack_from(data)[1]
        if number == 0:
            continue
        struct.pack_into("<8sQ", data, 0, MAGIC_UNCHECKED, number)
        at = HEAD.size
        while at + RECORD.size <= len(data):
            (measure,) = struct.unpack_from("<I", data, at)
            if measure == 0:
                break
            stamp = (number * 0x9E3779B1 + at) & 0xFFFFFFFF
            RECORD.pack_into(data, at, measure, stamp)
            at += RECORD.size + (measure & 0xFFFFFF)
        path.write_bytes(data)


def _as_it_is(_: Path) -> None:
    pass


@pytest.mark.parametrize("age", [as_written_by_0_1, _as_it_is])
async def test_a_gateway_that_was_upgraded_in_place_loses_nothing(
    tmp_path: Path, age: Callable[[Path], None]
) -> None:
    kept = journal(tmp_path)
    kept.accepted("open", b'{"id":"open"')
    for number in range(200):
        kept.ended(f"r{number}", EVENT % number)
    kept.free_before(kept._segments[2].base)
    kept.check()
    expected = read_crashed_journal(kept.folder.path)
    events = ids(expected)
    os.close(kept.folder._lock or -1)  # its process dies
    age(kept.folder.path)
    crashed = read_crashed_journal(kept.folder.path)
    assert (ids(crashed), crashed.open) == (events, expected.open)
    assert (crashed.accepted, crashed.ended) == (201, 200)
    assert (crashed.safe, crashed.corrupt) == (expected.safe, 0)
    heir = journal(tmp_path, "heir")
    assert await JournalRecovery(tmp_path, heir).look() == 1
    taken = [r.id for r in heir.read(0, heir.written) if r.id]
    assert taken == [*events, "open", "dead:closed"]


async def test_a_corrupt_journal_is_taken_over_and_said(tmp_path: Path) -> None:
    kept, at = written(tmp_path)
    os.close(kept.folder._lock or -1)
    overwrite(only_file(kept), at[2] - kept._current.base + 20, b"\xff")
    heir = journal(tmp_path, "heir")
    assert await JournalRecovery(tmp_path, heir).look() == 1
    taken = [r.id for r in heir.read(0, heir.written) if r.id]
    assert taken == [*others(2), "dead:closed"]
    assert heir.corrupt == 1


@pytest.mark.parametrize("age", [as_written_by_0_1, _as_it_is])
async def test_no_garbage_stops_a_successor(
    tmp_path: Path, age: Callable[[Path], None]
) -> None:
    kept, _ = written(tmp_path)
    kept.check()
    os.close(kept.folder._lock or -1)
    age(kept.folder.path)
    path = only_file(kept)
    whole = path.read_bytes()
    for place in range(HEAD.size, kept._current.fill):
        overwrite(path, place, b"\xff")
        crashed = read_crashed_journal(kept.folder.path)
        assert all(isinstance(id_, str) for id_ in ids(crashed))
        list(crashed.interrupted(STARTED_MS))
        crashed.close()
        overwrite(path, place, whole[place : place + 1])
