"""When the ledger is balanced, when it is not, and when that is unknown."""

from dataclasses import replace
from typing import Any

import pytest

from libs.common.routing.types import Reported
from libs.common.store.interface import Book
from services.router.admin.audit import (
    CLOSED_FOR_MS,
    MISSING_MS,
    Finding,
    accounts,
    doubled,
    judge,
)
from tests.support.values.telemetry import gateway_event

NOW_MS = 1_700_000_000_000
SILENT_MS = 60_000
SEEN_AT = "2023-11-14T22:13:20.000Z"  # the same moment
FINE = Finding((), ())


def book(id_: str = "gw", **given: Any) -> Book:
    empty = Book(id_, None, SEEN_AT, 0, 0, 0, "running", 0, 0)
    return replace(empty, **given)


def reported(
    accepted: int, ended: int, held: int, age_ms: int = 500, id_: str = "gw"
) -> dict[str, Reported]:
    books = gateway_event(id_, accepted=accepted, ended=ended, held=held)
    return {id_: Reported(NOW_MS - age_ms, age_ms, books)}


def found(
    reports: dict[str, Reported], *books: Book, depth: int = 0, later_ms: int = 0
) -> Finding:
    return judge(accounts(reports, books, SILENT_MS), reports, depth, NOW_MS + later_ms)


@pytest.mark.parametrize(
    ("reports", "given", "expected"),
    [
        pytest.param(reported(9, 8, 3), {"stored": 5}, (9, 3, 1), id="as reported"),
        pytest.param(reported(9, 8, 3), {"stored": 7}, (9, 1, 1), id="more is stored"),
        pytest.param(reported(9, 8, 3), {"stored": 9}, (9, 0, 0), id="all is stored"),
        pytest.param(reported(9, 8, 3), {"stored": 12}, (12, 0, 0), id="older report"),
        pytest.param(reported(9, 8, 3), {"stored": 5, "dead": 2}, (9, 1, 1), id="dead"),
        pytest.param(
            {}, {"accepted": 9, "ended": 8, "stored": 5}, (9, 3, 1), id="last word"
        ),
        pytest.param(
            {}, {"accepted": 9, "ended": 8, "state": "closed"}, (9, 9, 0), id="closed"
        ),
        pytest.param({}, {"stored": 4, "last_seen_at": None}, (4, 0, 0), id="no word"),
    ],
)
def test_an_account_adds_up(
    reports: dict[str, Reported], given: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    (account,) = accounts(reports, [book(**given)], SILENT_MS)
    assert (account.accepted, account.pending, account.in_flight) == expected
    parts = account.stored + account.dead_lettered + account.pending + account.in_flight
    assert account.accepted == parts


@pytest.mark.parametrize(
    ("silent_ms", "state"), [(5_000, "silent"), (5_001, "running"), (60_000, "running")]
)
def test_silence_is_what_the_settings_say(silent_ms: int, state: str) -> None:
    (account,) = accounts(reported(5, 5, 0, age_ms=5_000), [], silent_ms)
    assert account.state == state


@pytest.mark.parametrize(
    ("finding", "expected"),
    [
        pytest.param(found({}), FINE, id="nobody"),
        pytest.param(found(reported(5, 5, 0), book(stored=5)), FINE, id="all there"),
        pytest.param(found(reported(5, 5, 2), book(stored=3)), FINE, id="held"),
        pytest.param(found(reported(5, 3, 0), book(stored=3)), FINE, id="under way"),
        pytest.param(found(reported(5, 5, 0), book(stored=9)), FINE, id="SQL is ahead"),
        pytest.param(
            found(reported(5, 5, 0), book(stored=4, dead=1)), FINE, id="one is dead"
        ),
        pytest.param(
            found(reported(5, 5, 0), book(stored=4)),
            Finding(("gw: 1 stored requests are gone",), ()),
            id="lost",
        ),
        pytest.param(
            found(reported(5, 5, 0, SILENT_MS), book(stored=4)),
            Finding((), ("gw",)),
            id="silent with one to come",
        ),
        pytest.param(
            found(reported(5, 5, 2, SILENT_MS), book(stored=5)),
            Finding((), ("gw",)),
            id="silent, even as far as we know",
        ),
        pytest.param(
            found({}, book(accepted=5, stored=5), later_ms=MISSING_MS),
            FINE,
            id="silent for long, and even",
        ),
        pytest.param(
            found({}, book(accepted=5, stored=3), later_ms=MISSING_MS),
            Finding(("gw: died with 2 requests",), ()),
            id="silent for too long",
        ),
        pytest.param(
            found({}, book(accepted=5, stored=3, state="closed"), later_ms=10_001),
            Finding(("gw: 2 requests are nowhere",), ()),
            id="closed, nothing to come, and not all there",
        ),
        pytest.param(
            found(
                {},
                book(accepted=5, stored=3, state="closed"),
                later_ms=CLOSED_FOR_MS,
            ),
            FINE,
            id="closed just now",
        ),
        pytest.param(
            found(
                {}, book(accepted=5, stored=3, state="closed"), depth=1, later_ms=10_001
            ),
            FINE,
            id="closed, and the queue is not empty",
        ),
        pytest.param(
            found(
                reported(5, 5, 2, id_="heir"),
                book("heir", stored=5),
                book(accepted=5, stored=3, state="closed"),
                later_ms=10_001,
            ),
            FINE,
            id="closed, and its heir holds some",
        ),
        pytest.param(
            found(
                reported(5, 5, 2, SILENT_MS, id_="heir"),
                book("heir", stored=5),
                book(accepted=5, stored=3, state="closed"),
                later_ms=10_001,
            ),
            Finding((), ("heir",)),
            id="closed, and its heir is silent",
        ),
    ],
)
def test_what_is_found(finding: Finding, expected: Finding) -> None:
    assert finding == expected


@pytest.mark.parametrize(
    ("between", "later", "problems"),
    [
        pytest.param(reported(5, 5, 0, 900), reported(6, 6, 0, 100), 1, id="doubled"),
        pytest.param(reported(5, 5, 0, 900), reported(7, 6, 0, 100), 0, id="even"),
        pytest.param(reported(5, 5, 0), reported(5, 5, 0), 0, id="no new report"),
        pytest.param({}, reported(5, 5, 0), 0, id="not heard of between"),
        pytest.param(reported(5, 5, 0), {}, 0, id="not heard of later"),
    ],
)
def test_more_than_was_accepted_is_found_by_a_later_report(
    between: dict[str, Reported], later: dict[str, Reported], problems: int
) -> None:
    earlier = accounts({}, [book(stored=6, dead=1)], SILENT_MS)
    assert len(doubled(earlier, between, later)) == problems


def test_gateways_of_other_shards_are_not_judged() -> None:
    """Their reports, and what they did not store, are in another Redis."""
    lost: dict[str, Any] = {"accepted": 5, "stored": 3, "shard": "c"}
    gone = book("gone", state="closed", **lost)
    listed = accounts(
        reported(5, 5, 0), [book(**lost), book("x", **lost), gone], 1, "b"
    )
    assert [(a.id, a.shard, a.state) for a in listed] == [
        ("gw", "b", "silent"),  # it reports here
        ("x", "c", "other"),
        ("gone", "c", "closed"),
    ]
    finding = judge(listed, reported(5, 5, 0), 0, NOW_MS + CLOSED_FOR_MS + 1, "b")
    assert finding == Finding((), ("gw",))
    assert [a.pending + a.in_flight for a in listed[1:]] == [2, 2]
