"""The memory for captured bodies is limited, and bodies are not copied."""

from libs.common.headers import NO_KINDS
from services.gateway.capture.capture import (
    CHUNK_OVERHEAD,
    FULL_HERE,
    REQUEST_OVERHEAD,
    Budget,
    Capture,
)

LIMIT = 100
ROOMY = 1_000_000


def test_keeps_no_copy() -> None:
    chunk = b"x" * 50
    capture = Capture(b"", NO_KINDS, LIMIT, Budget(ROOMY))
    capture.keep(chunk)
    capture.response_kinds = NO_KINDS
    capture.end("r", 1)
    assert capture.response_body() is chunk


def test_stops_at_the_limit_and_counts_on() -> None:
    capture = Capture(b"q" * 300, NO_KINDS, LIMIT, Budget(ROOMY))
    for _ in range(5):
        capture.keep(b"x" * 30)
    capture.response_kinds = NO_KINDS
    capture.end("r", 1)
    assert capture.response_body() == b"x" * LIMIT
    assert (capture.response_bytes, capture.request_bytes) == (150, 300)


def test_an_answer_without_room_is_let_go() -> None:
    budget = Budget(2 * (30 + CHUNK_OVERHEAD) + REQUEST_OVERHEAD)
    capture = Capture(b"", NO_KINDS, LIMIT, budget)
    other = Capture(b"", NO_KINDS, LIMIT, budget)
    assert budget.take(REQUEST_OVERHEAD)
    for _ in range(2):
        other.keep(b"y" * 30)
    capture.keep(b"x" * 30)
    other.discard()
    capture.keep(b"x" * 30)  # too late: what is kept must be whole
    budget.give_back(REQUEST_OVERHEAD)
    capture.response_kinds = NO_KINDS
    capture.end("r", 1)
    assert (capture.response_dropped, capture.response_bytes) == (FULL_HERE, 60)
    assert capture.request_dropped is None
    assert budget.held == capture.held == REQUEST_OVERHEAD


def test_without_an_answer_there_is_none() -> None:
    capture = Capture(b"q", NO_KINDS, LIMIT, Budget(ROOMY))
    capture.end("r", 1)
    assert (capture.response_kinds, capture.response_dropped) == (None, None)


def test_what_passes_after_the_end_changes_nothing() -> None:
    capture = Capture(b"", NO_KINDS, LIMIT, Budget(ROOMY))
    capture.response_kinds = NO_KINDS
    capture.keep(b"before")
    capture.end("r", 1)
    capture.keep(b"after")
    assert (capture.response_body(), capture.response_bytes) == (b"before", 6)
