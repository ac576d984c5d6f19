"""Degraded states, as they begin and end."""

from structlog.testing import capture_logs

from libs.common.runtime.conditions import Conditions


def test_a_state_is_logged_when_it_begins_and_when_it_ends() -> None:
    now = 100.0
    conditions = Conditions(lambda: now)
    with capture_logs() as logs:
        conditions.note({})
        conditions.note({"redis": "unreachable"})
        conditions.note({"redis": "unreachable since long", "journal": "full"})
        both = conditions.parts
        now += 12.34
        conditions.note({"journal": "full"})
        conditions.note({"journal": "full"})
    assert (both, conditions.parts) == (("redis", "journal"), ("journal",))
    told = [(line["action"], line["part"]) for line in logs]
    assert told == [
        ("degraded_began", "redis"),
        ("degraded_began", "journal"),
        ("degraded_ended", "redis"),
    ]
    assert logs[0]["problem"] == "unreachable"
    assert logs[0]["log_level"] == "warning"
    assert logs[2]["lasted_s"] == 12.3
