"""Captures are queued when their request ends, and the queue is bounded. What the
worker does with them is in test_worker.py."""

import pytest

from libs.common.headers import NO_KINDS
from services.gateway.capture import recorder
from services.gateway.capture.capture import REQUEST_OVERHEAD, Budget
from services.gateway.capture.recorder import BATCH, CaptureRecorder, Inbox

ROOMY = 1_000_000


def test_nothing_is_captured_at_a_limit_of_0() -> None:
    assert CaptureRecorder(0, Inbox(Budget(ROOMY)), None).begin(b"", NO_KINDS) is None


def test_a_capture_counts_until_the_worker_frees_it() -> None:
    inbox = Inbox(Budget(ROOMY))
    recording = CaptureRecorder(100, inbox, None)
    capture = recording.begin(b"body", NO_KINDS)
    assert capture is not None
    recording.hand_over("r", 1, capture)
    assert (inbox.waiting, recording.held) == (1, REQUEST_OVERHEAD + 4)
    inbox.close()
    assert inbox.take() == ([capture], True)
    assert (capture.request_id, capture.created_at_ms) == ("r", 1)
    inbox.budget.free(capture.held)
    assert recording.held == 0


def test_a_capture_that_finds_the_queue_full_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder, "MOST_WAITING", 0)
    inbox = Inbox(Budget(ROOMY))
    recording = CaptureRecorder(100, inbox, None)
    capture = recording.begin(b"body", NO_KINDS)
    assert capture is not None
    recording.hand_over("r", 1, capture)
    assert (inbox.waiting, recording.held) == (0, 0)


def test_batches_are_bounded_and_the_last_one_is_empty() -> None:
    inbox = Inbox(Budget(ROOMY))
    recording = CaptureRecorder(100, inbox, None)
    for number in range(BATCH + 1):
        capture = recording.begin(b"", NO_KINDS)
        assert capture is not None
        recording.hand_over(str(number), 1, capture)
    inbox.close()
    taken = [inbox.take() for _ in range(3)]
    assert [len(batch) for batch, _ in taken] == [BATCH, 1, 0]
    assert [more for _, more in taken] == [True, True, False]
