"""What is logged of stored events."""

import pytest
from structlog.testing import capture_logs

from libs.common.contracts.catalogue import HealthState
from libs.common.runtime.log_limit import MOST_A_MINUTE, LogLimit
from libs.common.store.interface import DeadLetter
from services.ingest import event_log
from services.ingest.event_log import tell
from tests.support.values.telemetry import health_event, request_event, streamed


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "_limit", LogLimit())


def letter(reason: str = "no number") -> DeadLetter:
    return DeadLetter(
        id="l", entry_id="1-0", event_id="req-1", kind="request", reason=reason,
        data="{}", created_at_ms=0, gateway_id=None,
    )  # fmt: skip


def test_a_transition_of_health_is_logged() -> None:
    down = health_event(
        after=HealthState.DEGRADED, before=HealthState.HEALTHY, cause="429",
        model="x" * 999, cooldown_until_ms=5,
    )  # fmt: skip
    with capture_logs() as logs:
        tell([streamed(request_event()), streamed(down), streamed(health_event())], [])
    first, second = logs
    assert (first["action"], first["resource"], first["log_level"]) == (
        "health_changed", "openai-1", "warning",
    )  # fmt: skip
    assert (first["before"], first["after"], first["cause"]) == (
        "healthy", "degraded", "429",
    )  # fmt: skip
    assert (len(first["model"]), first["cooldown_until_ms"]) == (event_log.CHARS, 5)
    assert second["log_level"] == "info"


def test_a_flood_of_dead_letters_is_not_logged() -> None:
    with capture_logs() as logs:
        tell([], [letter() for _ in range(500)])
    assert len(logs) == MOST_A_MINUTE
    assert (logs[0]["action"], logs[0]["event_id"], logs[0]["kind"]) == (
        "dead_letter", "req-1", "request",
    )  # fmt: skip


def test_a_flood_of_transitions_is_not_logged() -> None:
    with capture_logs() as logs:
        tell([streamed(health_event()) for _ in range(500)], [])
    assert len(logs) == MOST_A_MINUTE
