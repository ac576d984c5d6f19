import pytest

from services.ingest.batch import (
    BATCH_BYTES,
    FIRST_READ_ENTRIES,
    IDLE_S,
    READ_ENTRIES,
    BatchRule,
    Size,
)

RULE = BatchRule(size=10, max_age_s=0.2)


@pytest.mark.parametrize(
    ("size", "age_s", "due"),
    [
        pytest.param(Size(), 99, False, id="empty, however old"),
        pytest.param(Size(1), 0.1, False, id="small and young"),
        pytest.param(Size(1), 0.2, True, id="old"),
        pytest.param(Size(10), 0, True, id="full"),
        pytest.param(Size(11), 0, True, id="overfull"),
        pytest.param(Size(99, more=True), 0, False, id="grows with a backlog"),
        pytest.param(Size(100, more=True), 0, True, id="but not for ever"),
        pytest.param(Size(99, more=True), 0.2, True, id="nor beyond its age"),
        pytest.param(Size(1, BATCH_BYTES, more=True), 0, True, id="few large ones"),
    ],
)
def test_a_batch_is_due_when_big_or_old(size: Size, age_s: float, due: bool) -> None:
    assert RULE.due(size, age_s) is due


def test_reads_grow_to_their_bound() -> None:
    large = BatchRule(size=500, max_age_s=0.2)
    assert large.room(Size()) == FIRST_READ_ENTRIES
    assert large.room(Size(64, 64_000)) == READ_ENTRIES
    assert [RULE.room(Size(n, n)) for n in (0, 60, 99, 100)] == [10, 40, 1, 1]


def test_a_read_asks_for_what_fits_by_the_mean_size_so_far() -> None:
    large = BatchRule(size=500, max_age_s=0.2)
    assert large.room(Size(64, BATCH_BYTES // 2)) == 64
    assert large.room(Size(64, BATCH_BYTES)) == 1


def test_waiting_ends_when_the_batch_is_due() -> None:
    assert RULE.patience_s(Size(), 99) == IDLE_S
    assert RULE.patience_s(Size(1), 0.15) == pytest.approx(0.05)
    assert RULE.patience_s(Size(1), 0.3) == 0
    assert RULE.patience_s(Size(10, more=True), 0) == 0
    assert BatchRule(10, 60).patience_s(Size(1), 0) == IDLE_S
