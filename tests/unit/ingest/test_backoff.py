import pytest

from services.ingest.backoff import Backoff


@pytest.mark.parametrize(
    ("failures", "draw", "expected"),
    [
        pytest.param(0, 0, 1, id="the base"),
        pytest.param(2, 0, 4, id="doubled twice"),
        pytest.param(9, 0, 8, id="capped"),
        pytest.param(99_999, 0, 8, id="a long outage"),
        pytest.param(2, 1, 2, id="jitter takes half at most"),
    ],
)
def test_pauses_grow(failures: int, draw: float, expected: float) -> None:
    assert Backoff(base_s=1, cap_s=8).pause_s(failures, draw) == expected
