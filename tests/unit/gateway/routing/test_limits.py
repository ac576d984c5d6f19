"""What a gateway learns of limits and of the size of requests."""

import pytest

from libs.common.headers import Header
from services.gateway import metrics
from services.gateway.routing.limits import MOST_MODELS, LimitNotes


def headers(remaining: str, reset: str = "60s") -> list[Header]:
    return [
        (b"x-ratelimit-limit-tokens", b"1000"),
        (b"x-ratelimit-remaining-tokens", remaining.encode()),
        (b"x-ratelimit-reset-tokens", reset.encode()),
    ]


def test_plenty_is_read_once_a_second() -> None:
    notes, plenty = LimitNotes(), headers("900")
    assert notes.told("r", "m", plenty, 10, 12.5) == "2500 -1 -1 -1 1000 900 60000"
    assert notes.told("r", "m", plenty, 10.9, 11) == ""
    assert notes.told("r", "other", plenty, 10.9, 11) != ""
    assert notes.told("other", "m", plenty, 10.9, 11) != ""
    assert notes.told("r", "m", plenty, 11, 11) != ""


def test_little_is_always_read() -> None:
    notes, little = LimitNotes(), headers("400")
    assert notes.told("r", "m", little, 10, 10) == "0 -1 -1 -1 1000 400 60000"
    assert notes.told("r", "m", little, 10, 10) != ""


def test_what_is_not_understood_is_counted_once_a_second() -> None:
    notes, before = LimitNotes(), dict(metrics.ignored_limits.counts)
    odd = headers("900", "1 fortnight")
    assert notes.told("r", "m", odd, 10, 10) == ""
    assert notes.told("r", "m", odd, 10, 10) == ""
    assert metrics.ignored_limits.counts == before | {
        "odd_unit": before["odd_unit"] + 1
    }


def test_models_are_bounded() -> None:
    notes = LimitNotes()
    for number in range(MOST_MODELS + 5):
        notes.told("r", f"m{number}", headers("900"), 10, 10)
        notes.took(f"m{number}", 400, 50)
    assert len(notes._reported) == len(notes._ratios) == MOST_MODELS


def test_an_estimate_learns() -> None:
    notes = LimitNotes()
    assert notes.estimate("m", 4_000, 0) == 1_000
    assert notes.estimate("m", 4_000, 300) == 1_300
    for _ in range(60):
        notes.took("m", 4_000, 500)
    assert notes.estimate("m", 4_000, 0) == pytest.approx(500, rel=0.01)
    assert notes.estimate("other", 4_000, 0) == 1_000
    notes.took("m", 0, 10**9)  # one answer does not outweigh the rest
    assert notes.estimate("m", 4_000, 0) < 10**6
