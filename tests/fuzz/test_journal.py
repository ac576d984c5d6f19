"""Journals whose files are damaged: recovery finds what is whole, nothing else,
and never fails."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from services.gateway.ledger.journal.journal import STREAM_KINDS, Journal
from services.gateway.ledger.journal.recovery import JournalRecovery
from tests.fuzz.bounds import FUZZ

SEGMENT = 4_096
NOW_MS = 1_700_000_000_000
Event = tuple[str, str, bytes]

ACTS = st.lists(
    st.tuples(
        st.sampled_from(["accepted", "ended", "decided", "check", "settle"]),
        st.integers(0, 9),
        st.integers(0, 900),
    ),
    max_size=40,
)
# Damage to a file: position and bytes to write; None truncates the file.
PIECES = st.none() | st.binary(min_size=1, max_size=16)
HARM = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, SEGMENT), PIECES),
    min_size=1,
    max_size=4,
)


@contextmanager
def folder() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp())
    try:
        yield root
    finally:
        shutil.rmtree(root)


def written(root: Path, acts: list[tuple[str, int, int]]) -> set[Event]:
    """The events of a gateway that did all this and crashed, by their ids."""
    journal = Journal(root, "dead", NOW_MS, 100 * SEGMENT, SEGMENT)
    events: set[Event] = set()
    for number, (act, request, size) in enumerate(acts):
        text = b'{"id":"r%d","n":%d,"x":"%b"' % (request, number, b"x" * size)
        if act == "accepted":
            journal.accepted(f"r{request}", text)
        elif act == "ended":
            journal.ended(f"r{request}", text + b"}")
            events.add(("request", f"r{request}", text + b"}"))
        elif act == "decided":
            journal.decided(f"d{number}", text + b"}")
            events.add(("decision", f"d{number}", text + b"}"))
        elif act == "check":
            journal.check()
    journal.folder.close(empty=False)
    return events


def recovered(root: Path) -> set[Event]:
    """The events that recovery finds in it, without those it adds."""
    heir = Journal(root, "heir", NOW_MS, 1 << 26, 1 << 16)
    try:
        asyncio.run(JournalRecovery(root, heir).look())
        records = list(heir.read(0, heir.written))
    finally:
        heir.close()
    told = {
        (STREAM_KINDS[r.kind], r.id, r.data)
        for r in records
        if r.kind in STREAM_KINDS and b"gateway_lost" not in r.data
    }
    return {event for event in told if event[0] != "gateway"}


def harm(root: Path, places: list[tuple[int, int, bytes | None]]) -> None:
    files = sorted((root / "dead").glob("*.log"))
    for number, place, piece in places if files else ():
        path = files[number % len(files)]
        data = bytearray(path.read_bytes())
        if piece is None:
            del data[place:]
        else:
            data[place : place + len(piece)] = piece
        path.write_bytes(data)


@FUZZ
@given(ACTS)
def test_a_whole_journal_is_told_whole(acts: list[tuple[str, int, int]]) -> None:
    with folder() as root:
        events = written(root, acts)
        assert recovered(root) == events


@FUZZ
@example([("check", 0, 0)], [(0, 51, b"\0" * 7)])  # a short CHECK record
@given(ACTS, HARM)
def test_a_damaged_journal_ends_no_successor(
    acts: list[tuple[str, int, int]], places: list[tuple[int, int, bytes | None]]
) -> None:
    with folder() as root:
        written(root, acts)
        harm(root, places)
        recovered(root)
        assert not (root / "dead").exists()


@FUZZ
@given(ACTS, HARM)
def test_of_a_damaged_journal_nothing_false_is_told(
    acts: list[tuple[str, int, int]], places: list[tuple[int, int, bytes | None]]
) -> None:
    with folder() as root:
        events = written(root, acts)
        harm(root, places)
        assert recovered(root) <= events
