"""Routing while Redis is away."""

from typing import Any, cast

import msgspec
import pytest

from libs.common.contracts import DecisionEvent, Resource
from libs.common.routing import Ask, NoCapacity, NoResources, UnknownPool
from services.gateway.directory import Directory, Target
from services.gateway.fallback import Fallback
from services.gateway.upstream import Origin


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
    """A directory with what it last read."""

    version = "v"

    def __init__(self, *targets: Target) -> None:
        self.targets = {t.resource.id: t for t in targets}


def fallback(*targets: Target) -> Fallback:
    return Fallback(cast(Directory, Known(*targets)))


def ask(**over: Any) -> Ask:
    given: dict[str, Any] = {
        "request_id": "r",
        "decision_id": "d",
        "attempt": 1,
        "gateway_id": "g",
        "pool_id": None,
        "session_id": None,
        "bound": (),
        "account_bound": False,
        "tried": (),
        "lease": b"",
        "draw": 0,
    }
    return Ask(**(given | over))


TWO_ACCOUNTS = (target(1, "a"), target(2, "a"), target(3, "b"))


def test_it_spreads_by_what_this_gateway_has_in_flight() -> None:
    alone = fallback(*TWO_ACCOUNTS)
    chosen = []
    for _ in range(3):
        decision, _event = alone.choose(ask(), None)
        alone.began(decision.resource_id)
        chosen.append(decision.resource_id)
    assert sorted(chosen) == ["openai-1", "openai-2", "openai-3"]
    for resource_id in chosen:
        alone.ended(resource_id)


def test_its_decisions_are_events_and_marked() -> None:
    decision, event = fallback(*TWO_ACCOUNTS).choose(ask(tried=("openai-1",)), None)
    told = DecisionEvent.model_validate_json(event)
    assert decision.degraded
    assert told.degraded
    assert [c.refused for c in told.candidates] == ["already tried", None, None]
    assert msgspec.json.decode(event)["resource_id"] == decision.resource_id


def test_it_remembers_who_owns_ids_and_sessions() -> None:
    alone = fallback(*TWO_ACCOUNTS)
    alone.remember(("id", "session"), "openai-3")
    assert alone.choose(ask(bound=("id",)), None)[0].reason == "response_affinity"
    by_session = alone.choose(ask(session_id="s"), "session")[0]
    assert (by_session.resource_id, by_session.reason) == (
        "openai-3",
        "session_affinity",
    )


@pytest.mark.parametrize(
    ("request_", "session"),
    [
        pytest.param(ask(bound=("id",), tried=("openai-1",)), None, id="bound id"),
        pytest.param(
            ask(session_id="s", account_bound=True, tried=("openai-1",)), "session",
            id="encrypted content",
        ),
    ],
)  # fmt: skip
def test_state_of_an_account_moves_to_its_siblings_only(
    request_: Ask, session: str | None
) -> None:
    alone = fallback(*TWO_ACCOUNTS)
    alone.remember(("id", "session"), "openai-1")
    for _ in range(5):
        assert alone.choose(request_, session)[0].resource_id == "openai-2"


def test_without_a_sibling_there_is_no_capacity() -> None:
    alone = fallback(*TWO_ACCOUNTS)
    alone.remember(("id",), "openai-3")
    with pytest.raises(NoCapacity):
        alone.choose(ask(bound=("id",), tried=("openai-3",)), None)


def test_what_it_refuses() -> None:
    with pytest.raises(NoResources):
        fallback().choose(ask(), None)
    with pytest.raises(UnknownPool) as unknown:
        fallback(*TWO_ACCOUNTS).choose(ask(pool_id="q"), None)
    assert unknown.value.pools == ("p",)
