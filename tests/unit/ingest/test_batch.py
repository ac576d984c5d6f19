import pytest

from services.ingest.batch import IDLE_S, BatchRule

RULE = BatchRule(size=10, max_age_s=0.2)


@pytest.mark.parametrize(
    ("count", "age_s", "due"),
    [
        pytest.param(0, 99, False, id="empty, however old"),
        pytest.param(1, 0.1, False, id="small and young"),
        pytest.param(1, 0.2, True, id="old"),
        pytest.param(10, 0, True, id="full"),
        pytest.param(11, 0, True, id="overfull"),
    ],
)
def test_a_batch_is_due_when_big_or_old(count: int, age_s: float, due: bool) -> None:
    assert RULE.due(count, age_s) is due


def test_there_is_room_up_to_the_size() -> None:
    assert [RULE.room(count) for count in (0, 9, 10, 12)] == [10, 1, 0, 0]


def test_waiting_ends_when_the_batch_is_due() -> None:
    assert RULE.patience_s(0, 99) == IDLE_S
    assert RULE.patience_s(1, 0.15) == pytest.approx(0.05)
    assert RULE.patience_s(1, 0.3) == 0
    assert BatchRule(10, 60).patience_s(1, 0) == IDLE_S
