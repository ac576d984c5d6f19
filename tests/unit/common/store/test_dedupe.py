"""What a batch changes, as a table of cases."""

import pytest

from libs.common.contracts.events import Outcome, StreamedEvent
from libs.common.store.dedupe import (
    GatewayDelta,
    Key,
    SessionDelta,
    Stored,
    dedupe,
    request_keys,
    stored_requests,
)
from tests.support.values.telemetry import (
    T0_MS,
    decision_event,
    gateway_event,
    health_event,
    stored_request,
    streamed,
)

REAL = stored_request("r", outcome=Outcome.COMPLETED)
LOST = stored_request("r", outcome=Outcome.INTERRUPTED)
STORED_REAL = {("r", T0_MS): Stored(None, "failed", 0)}
STORED_LOST = {("r", T0_MS): Stored(None, "interrupted", 0)}


@pytest.mark.parametrize(
    ("batch", "stored", "expected", "fresh"),
    [
        pytest.param([], {}, [], 0, id="nothing"),
        pytest.param([REAL], {}, [REAL], 1, id="new"),
        pytest.param([LOST], {}, [LOST], 1, id="new and interrupted"),
        pytest.param([REAL, REAL], {}, [REAL], 1, id="sent twice"),
        pytest.param([LOST, REAL], {}, [REAL], 1, id="the real one later"),
        pytest.param([REAL, LOST], {}, [REAL], 1, id="the real one first"),
        pytest.param([REAL], STORED_REAL, [], 0, id="stored before"),
        pytest.param([LOST], STORED_LOST, [], 0, id="interrupted before"),
        pytest.param([LOST], STORED_REAL, [], 0, id="interrupted never replaces"),
        pytest.param([REAL], STORED_LOST, [REAL], 0, id="the real one replaces"),
        pytest.param([LOST, REAL], STORED_LOST, [REAL], 0, id="replay, then real"),
    ],
)
def test_a_request_is_settled_once(
    batch: list[StreamedEvent],
    stored: dict[Key, Stored],
    expected: list[StreamedEvent],
    fresh: int,
) -> None:
    changes = dedupe(batch, stored)
    assert list(changes.requests) == [e.event for e in expected]
    assert list(changes.events) == expected
    assert changes.fresh == fresh


def test_other_events_pass_once() -> None:
    decision, health = streamed(decision_event()), streamed(health_event())
    changes = dedupe([decision, health, decision], {})
    assert changes.events == (decision, health)
    assert changes.requests == ()
    assert changes.sessions == ()


def test_kinds_do_not_share_ids() -> None:
    decision = streamed(decision_event(), "r")
    assert dedupe([REAL, decision], {}).events == (REAL, decision)


def test_a_session_counts_what_is_new() -> None:
    batch = [
        stored_request("b", session_id="s", created_at_ms=20, total_tokens=5,
                       resource_id="two"),
        stored_request("a", session_id="s", created_at_ms=10, total_tokens=7,
                       resource_id="one", session_name="first"),
        stored_request("c", session_id="s", created_at_ms=30),
        stored_request("d"),
    ]  # fmt: skip
    assert dedupe(batch, {}).sessions == (
        SessionDelta("s", 3, 12, 10, 30, "first", "two"),
    )


def test_a_replaced_row_gives_back_what_it_had_added() -> None:
    real = stored_request("r", session_id="s", total_tokens=50)
    stored = {("r", T0_MS): Stored("s", "interrupted", 8)}
    (gain,) = dedupe([real], stored).sessions
    assert (gain.requests, gain.total_tokens) == (0, 42)


def test_a_replaced_row_may_have_been_of_another_session() -> None:
    real = stored_request("r", session_id="new", total_tokens=50)
    stored = {("r", T0_MS): Stored("old", "interrupted", 8)}
    gains = {
        g.id: (g.requests, g.total_tokens) for g in dedupe([real], stored).sessions
    }
    assert gains == {"old": (-1, -8), "new": (1, 50)}


def test_keys_are_those_of_requests() -> None:
    assert request_keys([REAL, streamed(decision_event())]) == {("r", T0_MS)}


def test_a_gateway_gains_what_is_new_and_keeps_its_newest_report() -> None:
    batch = [
        stored_request("a", gateway_id="gw"),
        streamed(gateway_event("gw", created_at_ms=20, accepted=9, held=1), "2"),
        streamed(gateway_event("gw", created_at_ms=10, accepted=8, held=5), "1"),
        stored_request("b", gateway_id="gw"),
        LOST,
    ]
    stored = {("b", T0_MS): Stored(None, "interrupted", 0)}
    assert sorted(dedupe(batch, stored).gateways, key=lambda delta: delta.id) == [
        GatewayDelta("", 1),
        GatewayDelta("gw", 1, T0_MS - 60_000, 20, 9, 2, 1),
    ]


def test_a_closed_gateway_stays_closed() -> None:
    closed = streamed(gateway_event(created_at_ms=1, state="closed"), "1")
    running = streamed(gateway_event(created_at_ms=2), "2")
    for batch in ([closed, running], [running, closed]):
        (gain,) = dedupe(batch, {}).gateways
        assert (gain.state, gain.last_seen_at_ms) == ("closed", 2)


def test_stored_requests_are_known_by_id_and_time() -> None:
    row = {"id": "r", "created_at": "2023-11-14T22:13:20.123Z", "session_id": "s",
           "outcome": "failed", "total_tokens": None,
           "resource_id": None, "proxy_key_id": None}  # fmt: skip
    assert stored_requests([row]) == {("r", T0_MS): Stored("s", "failed", 0)}


def test_only_an_interrupted_request_is_replaced() -> None:
    assert dedupe([REAL], STORED_LOST).replaced == (("r", T0_MS),)
    assert dedupe([REAL], STORED_REAL).replaced == dedupe([REAL], {}).replaced == ()
