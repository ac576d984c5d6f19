"""The steps of a request, from its row and its decisions."""

from typing import Any

import pytest

from libs.common.contracts.events import Row
from services.router.admin.timeline import STEPS, timeline

AT = "2026-01-02T03:04:05.{:03}Z"


def row(**over: Any) -> Row:
    whole = {
        "created_at": AT.format(0), "attempts": 1, "overhead_ms": 2.0,
        "upstream_ms": 300.0, "first_token_ms": 400.0, "latency_ms": 900.0,
    }  # fmt: skip
    return {**whole, **over}


def decision(after_ms: int, waited_ms: int | None = None) -> Row:
    return {"created_at": AT.format(after_ms), "waited_ms": waited_ms}


@pytest.mark.parametrize(
    ("request_row", "decisions", "expected"),
    [
        pytest.param(row(), [decision(1)], [0, 1, 2, 302, 400, 900], id="usual"),
        pytest.param(
            row(), [decision(101, 100)], [0, 101, 102, 402, 402, 900], id="queued"
        ),
        pytest.param(
            row(attempts=2), [decision(1), decision(50)],
            [0, 50, 50, 350, 400, 900], id="the second attempt",
        ),
        pytest.param(
            row(), [decision(800)], [0, 2, 2, 302, 400, 900], id="Redis is ahead"
        ),
        pytest.param(row(), [], [0, None, 2, 302, 400, 900], id="no decision"),
        pytest.param(
            row(attempts=2), [], [0, None, None, None, 400, 900],
            id="no decision of several attempts",
        ),
        pytest.param(
            row(upstream_ms=None, first_token_ms=None), [decision(1)],
            [0, 1, 2, None, None, 900], id="no answer",
        ),
        pytest.param(
            row(attempts=0, overhead_ms=None, upstream_ms=None, first_token_ms=None),
            [], [0, None, None, None, None, 900], id="refused",
        ),
        pytest.param(
            row(latency_ms=None, overhead_ms=None, upstream_ms=None,
                first_token_ms=None),
            [decision(1)], [0, 1, None, None, None, None], id="reaped",
        ),
        pytest.param(
            row(upstream_ms=2000.0), [decision(1)], [0, 1, 2, 900, 900, 900],
            id="nothing is after the end",
        ),
    ],
)  # fmt: skip
def test_steps(
    request_row: Row, decisions: list[Row], expected: list[float | None]
) -> None:
    found = timeline(request_row, decisions)
    assert list(found) == [f"{name}_ms" for name in STEPS]
    assert list(found.values()) == expected


def test_a_clock_of_redis_that_is_behind_makes_no_negative_time() -> None:
    behind = {"created_at": "2026-01-02T03:04:04.000Z", "waited_ms": None}
    assert timeline(row(), [behind])["acquired_ms"] == 0
