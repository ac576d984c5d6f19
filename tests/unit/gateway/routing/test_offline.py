"""Routing while Redis is unreachable."""

from typing import Any, cast

import msgspec
import pytest

from libs.common.contracts.catalogue import Resource
from libs.common.contracts.events import DecisionEvent
from libs.common.routing.model_cooldowns import MOST_COOLING
from libs.common.routing.types import (
    Ask,
    NoCapacity,
    NoResources,
    Release,
    UnknownIds,
    UnknownPool,
)
from libs.common.upstream_answers.verdicts import Verdict, VerdictKind
from services.gateway.routing.catalogue import GatewayCatalogue
from services.gateway.routing.offline import OfflineRouting
from services.gateway.routing.target import Target
from services.gateway.upstream.origin import Origin


def target(number: int, account: str, pool: str = "p") -> Target:
    resource = Resource(
        id=f"openai-{number}",
        name=f"openai-{number}",
        pool_id=pool,
        account_id=account,
        weight=1,
        base_url="http://127.0.0.1/v1",
        credential="env:X",
    )
    return Target(resource, Origin("http", "127.0.0.1", 80), b"", b"", b"Bearer x")


class Known:
    """A catalogue as if it had been read."""

    version = "v"

    def __init__(self, *targets: Target) -> None:
        self.targets = {t.resource.id: t for t in targets}


def offline(*targets: Target) -> OfflineRouting:
    return OfflineRouting(cast(GatewayCatalogue, Known(*targets)))


def ask(**over: Any) -> Ask:
    given: dict[str, Any] = {
        "request_id": "r",
        "decision_id": "d",
        "attempt": 1,
        "gateway_id": "g",
        "pool_id": None,
        "session_id": None,
        "session": "",
        "model": "",
        "bound": (),
        "account_bound": False,
        "tried": (),
        "previous": "",
        "lease": b"",
        "draw": 0,
    }
    return Ask(**(given | over))


TWO_ACCOUNTS = (target(1, "a"), target(2, "a"), target(3, "b"))


def test_it_spreads_by_what_this_gateway_has_in_flight() -> None:
    alone = offline(*TWO_ACCOUNTS)
    chosen: list[str] = []
    for _ in range(3):
        request = f"r{len(chosen)}"
        decision, _event = alone.choose(ask(request_id=request))
        alone.began("g", request, decision.resource_id)
        chosen.append(decision.resource_id)
    assert sorted(chosen) == ["openai-1", "openai-2", "openai-3"]
    for number, resource_id in enumerate(chosen):
        alone.ended("g", f"r{number}", resource_id)
    assert set(map(len, alone.local.leases.values())) == {0}


def test_its_decisions_are_events_and_marked() -> None:
    decision, event = offline(*TWO_ACCOUNTS).choose(ask(tried=("openai-1",)))
    told = msgspec.json.decode(event, type=DecisionEvent)
    assert decision.degraded
    assert told.degraded
    assert [c.refused for c in told.candidates] == ["already tried", None, None]
    assert msgspec.json.decode(event)["resource_id"] == decision.resource_id


def test_its_decisions_say_what_was_left() -> None:
    alone = offline(*TWO_ACCOUNTS)
    alone.remember_success("session", (), "openai-1", "a")
    alone.local.publish(t.resource for t in TWO_ACCOUNTS)
    refused = Verdict(kind="refused", cause="401")
    alone.judged(Release("r", "g", "openai-1", refused, "", (), None, b"{}"))

    def cause(**more: Any) -> str | None:
        _, event = alone.choose(ask(session="session", **more))
        return msgspec.json.decode(event, type=DecisionEvent).cause

    assert cause() == "cooling_down"
    assert cause(attempt=2, tried=("openai-1",), cause="key_refused") == "key_refused"


def test_it_remembers_who_owns_ids_and_sessions() -> None:
    alone = offline(*TWO_ACCOUNTS)
    alone.remember_success("session", ("id",), "openai-3", "b")
    assert alone.choose(ask(bound=("id",)))[0].reason == "response_affinity"
    by_session = alone.choose(ask(session="session"))[0]
    assert (by_session.resource_id, by_session.reason) == (
        "openai-3",
        "session_affinity",
    )


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(ask(bound=("id",), tried=("openai-1",)), id="bound id"),
        pytest.param(
            ask(session="session", account_bound=True, tried=("openai-1",)),
            id="encrypted content",
        ),
    ],
)
def test_state_of_an_account_moves_to_its_siblings_only(request_: Ask) -> None:
    alone = offline(*TWO_ACCOUNTS)
    alone.remember_success("session", ("id",), "openai-1", "a")
    for _ in range(5):
        assert alone.choose(request_)[0].resource_id == "openai-2"


def test_a_key_that_was_refused_rests_until_redis_is_back() -> None:
    alone = offline(target(1, "a"), target(2, "b"))
    alone.choose(ask())
    refused = Verdict(kind="refused", cause="401")
    alone.judged(Release("r", "g", "openai-1", refused, "", (), None, b"{}"))
    for _ in range(3):
        decision, event = alone.choose(ask())
        assert decision.resource_id == "openai-2"
    assert b"cooling down" in event
    alone.redis_is_back()
    assert alone.choose(ask())[0].resource_id == "openai-1"


def test_ids_it_does_not_know_are_to_be_looked_for() -> None:
    alone = offline(*TWO_ACCOUNTS)
    with pytest.raises(UnknownIds):
        alone.choose(ask(bound=("id",)))
    alone.remember({}, {"id": None})
    reason = alone.choose(ask(bound=("id",)))[0].reason
    assert reason == "weighted_least_connections"


def test_what_it_remembers_can_be_given_back_in_parts() -> None:
    alone = offline(*TWO_ACCOUNTS)
    for number in range(5):
        alone.remember_success("s", (f"id-{number}",), "openai-1", "a")
    parts = list(alone.remembered(2))
    assert [len(ids) for _, ids in parts] == [2, 2, 1]
    assert [list(sessions) for sessions, _ in parts] == [["s"], [], []]


def test_without_a_sibling_there_is_no_capacity() -> None:
    alone = offline(*TWO_ACCOUNTS)
    alone.remember_success("", ("id",), "openai-3", "b")
    with pytest.raises(NoCapacity):
        alone.choose(ask(bound=("id",), tried=("openai-3",)))


def test_what_it_refuses() -> None:
    with pytest.raises(NoResources):
        offline().choose(ask())
    with pytest.raises(UnknownPool) as unknown:
        offline(*TWO_ACCOUNTS).choose(ask(pool_id="q"))
    assert unknown.value.pools == ("p",)


@pytest.mark.parametrize("kind", ["ok", "neutral", "limited"])
def test_model_names_fill_no_memory(kind: VerdictKind) -> None:
    """Clients choose them, and Redis may be away for long."""
    kept = offline(target(1, "a"))
    for number in range(3_000):
        kept.choose(ask(request_id=f"r{number}"))
        kept.judged(
            Release(
                request_id=f"r{number}",
                resource_id="openai-1",
                gateway_id="g",
                session="",
                verdict=Verdict(kind=kind),
                model=f"model-{number}",
                learned=(),
                event=None,
            )
        )
    assert len(kept.local.cooldowns) == (MOST_COOLING if kind == "limited" else 0)
