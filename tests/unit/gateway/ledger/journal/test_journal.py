"""The journal: records survive the process, however it ends, and space is freed once no
record needs it."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.gateway.ledger.journal import folder
from services.gateway.ledger.journal.journal import Journal
from services.gateway.ledger.journal.recovery import (
    CrashedJournal,
    read_crashed_journal,
)
from services.gateway.ledger.journal.segments import (
    HEAD,
    RECORD,
    Kind,
    create,
    read_segments,
)

SMALL = 4096
STARTED_MS = 1_700_000_000_000


def journal(root: Path, segments: int = 1000, segment_bytes: int = SMALL) -> Journal:
    size = segments * segment_bytes
    return Journal(root, "gw-1", STARTED_MS, size, segment_bytes)


def left_by(journal: Journal) -> CrashedJournal:
    """What recovery reads, while the files are as the process left them."""
    return read_crashed_journal(journal.folder.path)


def told(crashed: CrashedJournal) -> list[tuple[Kind, str, bytes]]:
    return [(r.kind, r.id, r.data) for r in crashed.events()]


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


class TestWhatIsFoundAgain:
    def test_what_was_accepted_and_how_it_ended(self, tmp_path: Path) -> None:
        kept = journal(tmp_path)
        kept.accepted("r1", b'{"id":"r1"')
        kept.accepted("r2", b'{"id":"r2"')
        kept.decided("d1", b'{"request_id":"r2"}')
        kept.ended("r1", b'{"id":"r1","outcome":"completed"}')

        crashed = left_by(kept)
        assert (crashed.accepted, crashed.ended) == (2, 1)
        assert crashed.open == {"r2": b'{"id":"r2"'}
        assert told(crashed) == [
            (Kind.DECISION, "d1", b'{"request_id":"r2"}'),
            (Kind.REQUEST, "r1", b'{"id":"r1","outcome":"completed"}'),
        ]
        assert (kept.open, kept.counters.accepted, kept.counters.ended) == (1, 2, 1)

    def test_an_end_without_a_beginning_counts_as_both(self, tmp_path: Path) -> None:
        kept = journal(tmp_path)
        kept.ended("r1", b"{}")
        crashed = left_by(kept)
        assert (kept.counters.accepted, crashed.accepted, crashed.ended) == (1, 1, 1)

    def test_nothing_is_told_again_of_what_is_safe(self, tmp_path: Path) -> None:
        kept = journal(tmp_path)
        kept.accepted("r1", b"{")
        kept.ended("r1", b"{}")
        kept.accepted("r2", b"{")
        kept.free_before(kept.written)
        kept.check()
        kept.ended("r2", b"{}")
        crashed = left_by(kept)
        assert told(crashed) == [(Kind.REQUEST, "r2", b"{}")]
        assert (crashed.accepted, crashed.ended, crashed.open) == (2, 2, {})

    def test_events_of_others_are_not_counted_as_its_own(self, tmp_path: Path) -> None:
        kept = journal(tmp_path)
        kept.adopt(Kind.REQUEST, "theirs", b"{}")
        kept.adopt(Kind.DECISION, "d", b"{}")
        crashed = left_by(kept)
        assert (crashed.accepted, kept.counters.accepted, kept.events) == (0, 0, 1)
        assert told(crashed) == [
            (Kind.ADOPTED, "theirs", b"{}"),
            (Kind.DECISION, "d", b"{}"),
        ]

    @pytest.mark.parametrize("written", range(RECORD.size + 13))
    def test_a_torn_last_record_is_not_there(
        self, tmp_path: Path, written: int
    ) -> None:
        """The body is written first, then kind and length, then the stamp."""
        kept = journal(tmp_path)
        kept.ended("whole", b"{}")
        at = kept.ended("torn", b"{12345}")
        kept.ended("after", b"{}")
        segment = kept._current
        body = at - segment.base + RECORD.size
        order = [*range(body, body + 12), *range(body - RECORD.size, body)]
        for offset in order[written:]:
            segment.buffer[offset] = 0
        for offset in range(body + 12, segment.size):
            segment.buffer[offset] = 0
        ids = [record.id for record in left_by(kept).events()]
        assert ids == (["whole", "torn"] if written == len(order) else ["whole"])

    def test_what_is_no_journal_is_passed_over(self, tmp_path: Path) -> None:
        kept = journal(tmp_path)
        kept.ended("r1", b"{}")
        (kept.folder.path / "short.log").write_bytes(b"RPX")
        (kept.folder.path / "other.log").write_bytes(os.urandom(SMALL))
        create(kept.folder.path / "spare.log", SMALL)
        assert [r.id for r in left_by(kept).events()] == ["r1"]


class TestRoom:
    def test_what_is_safe_is_given_up(self, tmp_path: Path) -> None:
        kept = journal(tmp_path)
        for number in range(200):
            kept.accepted(f"r{number}", b"{" + b"x" * 50)
            kept.ended(f"r{number}", b"{" + b"x" * 50)
        assert len(list(kept.folder.path.glob("*.log"))) > 5
        kept.free_before(kept.written)
        kept.check()
        kept.upkeep()
        assert kept.size_bytes == SMALL
        crashed = left_by(kept)
        assert (crashed.accepted, crashed.ended, told(crashed)) == (200, 200, [])

    def test_what_is_still_open_is_carried_over(self, tmp_path: Path) -> None:
        kept = journal(tmp_path, segments=8)
        kept.accepted("long", b'{"id":"long"')
        for number in range(300):
            kept.accepted(f"r{number}", b"{" + b"x" * 50)
            kept.ended(f"r{number}", b"{" + b"x" * 50)
            kept.free_before(kept.written)
        assert kept.size_bytes <= 6 * SMALL
        crashed = left_by(kept)
        assert crashed.open == {"long": b'{"id":"long"'}
        assert (crashed.accepted, crashed.ended) == (301, 300)
        kept.ended("long", b"{}")
        assert left_by(kept).open == {}

    def test_at_its_bound_the_oldest_goes_and_is_counted(self, tmp_path: Path) -> None:
        kept = journal(tmp_path, segments=4)
        for number in range(300):
            kept.unsent(kept.ended(f"r{number}", b"{" + b"x" * 50))
        assert kept.size_bytes == 4 * SMALL
        ids = [r.id for r in left_by(kept).events()]
        assert ids == [f"r{n}" for n in range(300 - len(ids), 300)]
        assert kept.lost == 300 - len(ids)
        assert kept.unsent_from == kept._segments[0].base
        assert [r.id for r in kept.read(0, kept.written) if r.id] == ids

    def test_only_what_redis_never_took_is_lost(self, tmp_path: Path) -> None:
        kept = journal(tmp_path, segments=4)
        for number in range(300):
            kept.ended(f"r{number}", b"{" + b"x" * 50)
        assert (kept.lost, kept.size_bytes) == (0, 4 * SMALL)

    def test_more_open_requests_than_room_end_no_loop(self, tmp_path: Path) -> None:
        kept = journal(tmp_path, segments=4)
        for number in range(500):
            kept.accepted(f"r{number}", b"{" + b"x" * 50)
        assert kept.open == 500
        assert kept.size_bytes <= 20 * SMALL

    def test_a_record_too_large_costs_only_itself(self, tmp_path: Path) -> None:
        kept = journal(tmp_path)
        kept.accepted("large", b"{" + b"x" * SMALL)
        kept.ended("large", b"{" + b"x" * SMALL)
        kept.ended("r1", b"{}")
        assert [r.id for r in left_by(kept).events()] == ["r1"]
        assert (kept.too_large, kept.open) == (2, 0)

    def test_a_spare_file_is_ready_before_it_is_needed(self, tmp_path: Path) -> None:
        kept = journal(tmp_path)
        kept.take_spare(kept.upkeep())
        before = set(kept.folder.path.glob("*.log"))
        assert not kept.wants_upkeep
        for number in range(60):
            kept.ended(f"r{number}", b"{" + b"x" * 50)
        assert set(kept.folder.path.glob("*.log")) == before


class TestWithoutDisk:
    def test_a_full_disk_means_memory_and_is_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept = journal(tmp_path)
        monkeypatch.setattr(folder, "create", no_room)
        for number in range(100):
            kept.accepted(f"r{number}", b"{" + b"x" * 50)
            kept.ended(f"r{number}", b"{" + b"x" * 50)
        assert "No space left on device" in str(kept.problem)
        assert len([r for r in kept.read(0, kept.written) if r.id]) == 200

        monkeypatch.undo()
        spare = kept.upkeep()
        assert kept.problem is None
        kept.take_spare(spare)
        for number in range(60):
            kept.ended(f"later{number}", b"{" + b"x" * 50)
        assert "later59" in [r.id for r in left_by(kept).events()]

    def test_memory_is_bounded_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(folder, "create", no_room)
        kept = journal(tmp_path)
        for number in range(3000):
            kept.unsent(kept.ended(f"r{number}", b"{" + b"x" * 50))
        assert kept.size_bytes <= 17 * SMALL
        assert kept.lost > 0

    @pytest.mark.parametrize(
        "spoil",
        [
            pytest.param(lambda root: root.write_text(""), id="a file in its place"),
            pytest.param(lambda root: root.symlink_to("/nowhere/at/all"), id="nowhere"),
        ],
    )
    def test_a_folder_that_cannot_be_made_stops_nothing(
        self, tmp_path: Path, spoil: Callable[[Path], object]
    ) -> None:
        root = tmp_path / "journal"
        spoil(root)
        kept = journal(root)
        kept.ended("r1", b"{}")
        assert kept.problem is not None
        assert [r.id for r in kept.read(0, kept.written) if r.id] == ["r1"]
        kept.close()


class TestItsEnd:
    def test_nothing_is_left_of_what_is_all_safe(self, tmp_path: Path) -> None:
        kept = journal(tmp_path)
        kept.ended("r1", b"{}")
        kept.free_before(kept.written)
        kept.close()
        assert list(tmp_path.iterdir()) == []

    def test_the_rest_stays_for_a_successor(self, tmp_path: Path) -> None:
        kept = journal(tmp_path)
        kept.ended("r1", b"{}")
        kept.close()
        assert [r.id for r in left_by(kept).events()] == ["r1"]


def test_segments_are_read_in_order_whatever_their_names(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    for number in range(300):
        kept.ended(f"r{number}", b"{" + b"x" * 50)
    for number, path in enumerate(sorted(kept.folder.path.glob("*.log"), reverse=True)):
        path.rename(kept.folder.path / f"x{number}.log")
    numbers = [segment.number for segment in read_segments(kept.folder.path)[0]]
    assert numbers == sorted(numbers)
    assert [r.id for r in left_by(kept).events()] == [f"r{n}" for n in range(300)]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("accept"), st.integers(0, 600)),
        st.tuples(st.just("end"), st.integers(0, 600)),
        st.tuples(st.just("decide"), st.integers(0, 600)),
        st.tuples(st.just("adopt"), st.integers(0, 600)),
        st.tuples(st.just("free"), st.integers(0, 100)),
        st.tuples(st.just("upkeep"), st.just(0)),
    ),
    max_size=120,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS, torn=st.integers(0, 300))
def test_a_successor_knows_what_the_gateway_knew(
    tmp_path: Path, steps: list[tuple[str, int]], torn: int
) -> None:
    """After any history, and wherever in the next write the process died."""
    kept = Journal(tmp_path, os.urandom(6).hex(), STARTED_MS, 1000 * SMALL, SMALL)
    events: list[tuple[int, str]] = []
    open_: dict[str, bytes] = {}
    safe = HEAD.size
    for number, (step, size) in enumerate(steps):
        id_, data = f"r{number}", b"{" + b"x" * size
        if step == "accept":
            kept.accepted(id_, data)
            open_[id_] = data
        elif step == "end":
            ended = next(iter(open_), id_)
            open_.pop(ended, None)
            events.append((kept.ended(ended, data), ended))
        elif step == "decide":
            events.append((kept.decided(id_, data), id_))
        elif step == "adopt":
            kept.adopt(Kind.REQUEST, id_, data)
            events.append((kept.unsent_from or 0, id_))
            kept.unsent_from = None
        elif step == "free":
            safe = max(safe, kept.written * size // 100)
            kept.free_before(safe)
            kept.check()
        else:
            kept.take_spare(kept.upkeep())
    # It dies in the middle of its next record.
    segment, part = kept._current, os.urandom(torn)
    at = segment.fill + RECORD.size
    part = part[: max(0, segment.size - at)]
    segment.buffer[at : at + len(part)] = part

    crashed = left_by(kept)
    assert crashed.open == open_
    assert crashed.accepted == kept.counters.accepted
    assert crashed.ended == kept.counters.ended
    left = [record.id for record in crashed.events()]
    assert left == [id_ for position, id_ in events if position >= kept.safe]
    crashed.close()
    kept.folder.close(empty=True)
