"""Parsing replies of the routing functions."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.exceptions import ResponseError

from libs.common.contracts.catalogue import HealthState
from libs.common.contracts.events import encode
from libs.common.errors import NoCatalogue, RedisAway
from libs.common.routing import replies, types
from libs.common.routing.budgets import LEFT
from libs.common.routing.replies import (
    DECISION_BEHIND,
    code_of,
    decision_of,
    entry_id_of,
    functions_of,
    pairs_of,
    refusal_of,
    report_of,
    state_of,
    unusable,
)
from libs.common.routing.types import Reported
from tests.support.values.catalogues import made_resource
from tests.support.values.telemetry import gateway_event


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ERR Function not found", NoCatalogue),
        ("OOM command not allowed", RedisAway),
        ("LOADING Redis is loading the dataset", RedisAway),
        ("READONLY You can't write against a read only replica.", RedisAway),
    ],
)
def test_an_error_reply_is_a_missing_library_or_a_redis_that_does_not_serve(
    text: str, kind: type[Exception]
) -> None:
    assert type(unusable(ResponseError(text))) is kind


@pytest.mark.parametrize("budgets", [0, 1, 2])
def test_a_decision_behind_what_the_key_used(budgets: int) -> None:
    form = LEFT[budgets]
    read = DECISION_BEHIND[form.size]
    bars = int.from_bytes(b"|||", "little")
    left = form.pack(*[bars + n for n in range(2 + 2 * budgets)])
    decision = read(left + b"one|panic|v1|1|{}")
    assert decision == decision_of(b"one|panic|v1|1|{}", decision.left)
    assert form.unpack_from(decision.left)[:2] == (bars, bars + 1)
    with pytest.raises(types.LimitsUnknown):
        read([b"limits_unknown"])
    with pytest.raises(types.KeyLimited) as limited:
        read([b"key_limit", b"requests", b"12"])
    assert (limited.value.which, limited.value.wait_ms) == ("requests", 12)
    with pytest.raises(RedisAway):
        read(ResponseError("LOADING"))


@pytest.mark.parametrize("found", [{b"a": b"1", b"b": b"2"}, [b"a", b"1", b"b", b"2"]])
def test_a_hash_by_either_client(found: Any) -> None:
    assert pairs_of(found) == {"a": b"1", "b": b"2"}


@pytest.mark.parametrize("empty", [{}, []])
def test_an_empty_hash_by_either_client(empty: Any) -> None:
    assert pairs_of(empty) == {}


def test_ids_of_entries_sort_as_numbers() -> None:
    assert entry_id_of(b"1700000000000-12") == (1_700_000_000_000, 12)
    assert entry_id_of(b"9-10") > entry_id_of(b"9-9")


def test_a_report_has_its_age() -> None:
    event = gateway_event()
    value = b"1000|" + encode(event)
    assert report_of(value, 1500) == Reported(1000, 500, event)


@pytest.mark.parametrize("value", [b"", b"1000", b"1000|{}", b"x|{", b"|"])
def test_a_report_of_another_version_is_none(value: bytes) -> None:
    assert report_of(value, 1500) is None


def test_a_report_with_an_odd_time_is_none() -> None:
    value = b"soon|" + encode(gateway_event())
    assert report_of(value, 1500) is None


@pytest.mark.parametrize(
    ("reply", "kind", "told"),
    [
        ([b"unknown_pool", b"b", b"a"], types.UnknownPool, {"pools": ("a", "b")}),
        ([b"look_up", b"1200"], types.UnknownIds, {"age_ms": 1200}),
        ([b"owner_limited", b"30"], types.OwnerLimited, {"retry_after_ms": 30}),
        ([b"no_capacity", b"40"], types.NoCapacity, {"retry_after_ms": 40}),
        ([b"no_resources"], types.NoResources, {}),
        ([b"owner_gone"], types.OwnerGone, {}),
        ([b"no_catalogue"], NoCatalogue, {}),
        ([b"of a later version"], NoCatalogue, {}),
    ],
)
def test_a_refusal(
    reply: list[bytes], kind: type[Exception], told: dict[str, Any]
) -> None:
    refusal = refusal_of(reply)
    assert type(refusal) is kind
    assert {name: getattr(refusal, name) for name in told} == told


LISTED = [
    [
        b"library_name", b"rpx", b"engine", b"LUA",
        b"functions",
        [[b"name", b"rpx_one_v1", b"flags", []], [b"name", b"rpx_two_v1"]],
        b"library_code", b"source",
    ]
]  # fmt: skip


def test_what_is_listed_of_the_library() -> None:
    assert code_of(LISTED) == "source"
    assert functions_of(LISTED) == {"rpx_one_v1", "rpx_two_v1"}
    assert code_of([]) is None
    assert functions_of([]) == frozenset()


SOON = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
SOON_MS = SOON.timestamp() * 1000
SHOWN = SOON.isoformat(timespec="milliseconds").replace("+00:00", "Z")
PAUSED = [{"model": "gpt-5", "until_ms": SOON_MS}]


@pytest.mark.parametrize(
    ("live", "health", "cooldown"),
    [
        pytest.param({}, HealthState.UNKNOWN, None, id="nothing known"),
        pytest.param({"state": "healthy"}, HealthState.HEALTHY, None, id="healthy"),
        pytest.param(
            {"state": "degraded", "until": str(SOON_MS)}, HealthState.DEGRADED, SHOWN,
            id="cooling down",
        ),
        pytest.param(
            {"state": "degraded", "until": "1"}, HealthState.DEGRADED, None,
            id="half open",
        ),
        pytest.param(
            {"state": "healthy", "paused": PAUSED}, HealthState.DEGRADED, SHOWN,
            id="one model cools down",
        ),
        pytest.param(
            {"state": "unhealthy", "paused": PAUSED}, HealthState.UNHEALTHY, None,
            id="the key is refused, whatever its models do",
        ),
    ],
)  # fmt: skip
def test_the_state_of_a_resource(
    live: dict[str, Any], health: HealthState, cooldown: str | None
) -> None:
    state = state_of(made_resource(), live)
    assert (state.health, state.cooldown_until) == (health, cooldown)
    assert state.paused_models == (("gpt-5",) if live.get("paused") else ())


def test_the_figures_of_a_resource() -> None:
    live = {"in_flight": 2, "requests": "7", "errors": "1", "latency_ms": "12.5"}
    state = state_of(made_resource(), live)
    assert (state.in_flight, state.requests, state.errors) == (2, 7, 1)
    assert state.last_latency_ms == 12.5
    assert state_of(made_resource(), {}).last_latency_ms is None


def test_a_decision_and_what_is_none() -> None:
    decision = decision_of(b'a|panic|v1|1|{"x":"|"}', b"left")
    assert decision == types.Decision(
        "a", "panic", "v1", trial=True, event=b'{"x":"|"}', left=b"left"
    )
    with pytest.raises(types.NoResources):
        decision_of([b"no_resources"])
    with pytest.raises(NoCatalogue):
        decision_of(ResponseError("ERR Function not found"))


@pytest.mark.parametrize("event", [b"", b"{}", b'{"x":"|{"}'])
@pytest.mark.parametrize("resource", ["a", "{a}", "a{|"[:2]])
def test_a_decision_is_the_same_when_it_recurs(resource: str, event: bytes) -> None:
    reply = resource.encode() + b"|panic|v1|0|" + event
    for _ in range(2):  # the second time from memory
        decision = decision_of(reply)
        assert (decision.resource_id, decision.reason) == (resource, "panic")
        assert (decision.version, decision.trial) == ("v1", False)
        assert decision.event == event
    assert decision_of(b"b|panic|v1|1|" + event).trial


def test_what_is_kept_of_decisions_is_bounded() -> None:
    for number in range(replies.MOST_CHOSEN + 9):
        decision_of(b"a%d|panic|v1|0|{}" % number)
    assert len(replies._chosen) <= replies.MOST_CHOSEN
