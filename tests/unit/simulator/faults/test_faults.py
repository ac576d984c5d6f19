"""Which fault applies to a request, and the notations for faults."""

from typing import Any

import msgspec
import pytest

from libs.simulator.api.answers import Fate
from libs.simulator.faults.faults import (
    NO_FAULT,
    ErrorSpec,
    Fault,
    Faults,
    parse_script,
)

PATH = "/v1/responses"


def faults(*scripts: dict[str, Any]) -> Faults:
    queue = Faults()
    for script in scripts:
        queue.add(parse_script(script))
    return queue


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        pytest.param({"status": 503}, Fault(status=503), id="plain field"),
        pytest.param(
            {"kind": "status", "status": 429, "headers": {"retry-after": "1"}},
            Fault(status=429, headers={"retry-after": "1"}),
            id="kind with its own field",
        ),
        pytest.param({"kind": "reset"}, Fault(reset=True), id="kind alone is true"),
        pytest.param(
            {"kind": "cut_after", "value": 3}, Fault(cut_after=3), id="kind and value"
        ),
        pytest.param(
            {"failed_event": "rate_limit_exceeded"},
            Fault(failed_event=ErrorSpec(code="rate_limit_exceeded")),
            id="a code for an error",
        ),
        pytest.param(
            {"error_event": True},
            Fault(error_event=ErrorSpec()),
            id="true for an error",
        ),
        pytest.param(
            {"kind": "incomplete"},
            Fault(incomplete="max_output_tokens"),
            id="usual reason",
        ),
        pytest.param(
            {"incomplete": "content_filter"},
            Fault(incomplete="content_filter"),
            id="reason given",
        ),
        pytest.param({"timeout": 0.5}, Fault(timeout=0.5), id="seconds"),
    ],
)
def test_a_fault_may_be_written_as(written: dict[str, Any], meant: Fault) -> None:
    assert parse_script({"fault": written}).fault == meant


@pytest.mark.parametrize(
    "written",
    [
        {"fault": {"explode": True}},
        {"fault": {"status": "many"}},
        {"fault": {"reset": True}, "tims": 1},
        {"key": "sk-sim-1"},
        {"fault": "reset"},
    ],
)
def test_a_script_with_a_mistake_is_refused(written: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        parse_script(written)


@pytest.mark.parametrize(
    ("script", "stage", "met"),
    [
        pytest.param({}, "http", True, id="any key, any path"),
        pytest.param({"key": "sk-1"}, "http", True, id="its key"),
        pytest.param({"key": "sk-2"}, "http", False, id="another key"),
        pytest.param({"match": {"path": "/v1/resp"}}, "http", True, id="path prefix"),
        pytest.param({"match": {"path": "/v1/models"}}, "http", False, id="other path"),
        pytest.param({"match": {"model": "gpt-5.5"}}, "http", True, id="its model"),
        pytest.param({"match": {"model": "gpt-5.4"}}, "http", False, id="other model"),
        pytest.param({}, "frame", True, id="a frame"),
        pytest.param({}, "upgrade", False, id="an upgrade does not use it up"),
    ],
)
def test_a_status_fault_is_met(
    script: dict[str, Any], stage: Any, *, met: bool
) -> None:
    queue = faults({"fault": {"status": 500}, **script})
    fault = queue.take("sk-1", PATH, "gpt-5.5", stage)
    assert (fault.status == 500) is met


@pytest.mark.parametrize(
    ("fault", "stages"),
    [
        ({"ws_refuse": 426}, {"upgrade"}),
        ({"ws_cut_after": 2}, {"frame"}),
        ({"revoked": True}, {"http", "upgrade", "frame"}),
        ({"cut_after": 2}, {"http", "frame"}),
    ],
)
def test_a_fault_concerns_the_stages_it_is_made_for(
    fault: dict[str, Any], stages: set[str]
) -> None:
    all_stages: list[Any] = ["http", "upgrade", "frame"]
    met = {
        stage
        for stage in all_stages
        if faults({"fault": fault}).take("sk-1", PATH, "m", stage) != NO_FAULT
    }
    assert met == stages


def test_queued_faults_are_met_in_order_and_as_often_as_told() -> None:
    queue = faults(
        {"times": 2, "fault": {"status": 500}}, {"times": 1, "fault": {"status": 429}}
    )
    met = [queue.take("k", PATH, None, "http").status for _ in range(4)]
    assert met == [500, 500, 429, None]
    assert queue.listed() == []


def test_a_fault_without_times_stays_until_cleared() -> None:
    queue = faults({"fault": {"revoked": True}})
    assert all(queue.take("k", PATH, None, "http").revoked for _ in range(3))
    queue.clear()
    assert queue.take("k", PATH, None, "http") == NO_FAULT


def test_compression_goes_with_any_other_fault() -> None:
    queue = faults(
        {"fault": {"compress": True}}, {"fault": {"delay_ms": 5}, "times": 1}
    )
    assert queue.take("k", PATH, None, "http") == Fault(compress=True, delay_ms=5)
    assert queue.take("k", PATH, None, "http") == Fault(compress=True)


@pytest.mark.parametrize(
    ("fault", "fate"),
    [
        (NO_FAULT, None),
        (Fault(incomplete="content_filter"), Fate("incomplete", "content_filter")),
        (
            Fault(failed_event=ErrorSpec("slow_down", "m")),
            Fate("failed", "slow_down", "m"),
        ),
    ],
)
def test_a_fault_decides_how_a_response_ends(fault: Fault, fate: Fate | None) -> None:
    assert fault.fate == fate


@pytest.mark.parametrize(
    ("fault", "cut"),
    [(Fault(cut_after=1), 1), (Fault(ws_cut_after=0), 0), (NO_FAULT, None)],
)
def test_a_cut_is_written_for_either_transport(fault: Fault, cut: int | None) -> None:
    assert fault.cut == cut
