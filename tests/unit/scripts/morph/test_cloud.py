"""Messages of one line, and bounded waiting. The rest is tested with the SDK, in
tests/integration/deploy."""

import time

import pytest

from scripts.morph import cloud
from scripts.morph.cloud import one_line, until


def test_a_long_text_is_cut_between_words() -> None:
    assert one_line(" two\n lines ") == "two lines"
    secret = "s" * 100
    line = one_line(f"{secret} {'word ' * 90}")
    assert line.startswith("... ")
    assert "s" not in line
    assert line.endswith("word")


def test_waiting_tries_at_once_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", pause)
    assert len(list(until(10))) == len(pauses) + 1
    assert sum(pauses) == pytest.approx(10)
    assert max(pauses) <= cloud.LONGEST_PAUSE_SECONDS
    assert len(list(until(0))) == 1
