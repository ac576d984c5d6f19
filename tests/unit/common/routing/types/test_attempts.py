"""What is asked for an attempt, and told of it."""

from dataclasses import fields, replace
from typing import Any

import pytest

from libs.common.routing.budgets import quota_at
from libs.common.routing.types import (
    CHAINED,
    CONFINED,
    DECIDED,
    Ask,
    Asker,
    Decision,
    Kept,
    Lease,
    Owner,
    Place,
    Release,
)
from libs.common.upstream_answers.verdicts import Verdict

QUOTA = quota_at("k", 1, None, (), 0)
ASK: dict[str, Any] = {
    "request_id": "r", "decision_id": "d", "attempt": 2, "gateway_id": "gw",
    "pool_id": "p", "session_id": "s", "session": "digest", "model": "m",
    "bound": ("b",), "account_bound": True, "tried": ("t",), "previous": "one",
    "lease": b"{", "draw": 7, "resolved": True, "replayed": True, "cause": "fault",
    "asker": Asker("t"), "tokens": 5, "socket": "two", "turn": DECIDED,
    "place": Place("key:k", 5), "waited_ms": 9, "quota": QUOTA, "may_use": "3",
    "tells": True,
}  # fmt: skip
RELEASE: dict[str, Any] = {
    "request_id": "r", "gateway_id": "gw", "resource_id": "one",
    "verdict": Verdict("ok"), "session": "digest", "learned": ("l",), "model": "m",
    "event": b"{}", "tenant": "t", "limits": "x", "quota": QUOTA, "tokens": 3,
    "nanos": 4,
}  # fmt: skip
GIVEN: list[tuple[type[Any], dict[str, Any]]] = [
    (Ask, ASK),
    (Release, RELEASE),
    (Asker, {"tenant": "t", "strict": True, "kinds": "n", "further": ("f",)}),
    (Place, {"share": "key:k", "left_ms": 5, "weight": 2.0}),
    (
        Decision,
        {
            "resource_id": "one", "reason": "r", "version": "v", "degraded": True,
            "trial": True, "event": b"{}", "left": b"l",
        },
    ),
    (Lease, {"request_id": "r", "resource_id": "one", "record": b"{}"}),
    (Owner, {"resource_id": "one", "account_id": "a", "tenant": "t"}),
    (Kept, {"owner": Owner("one", "a"), "left_ms": 5}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "given"), GIVEN)
def test_each_argument_is_the_field_of_its_name(
    kind: type[Any], given: dict[str, Any]
) -> None:
    made = kind(**given)
    assert [field.name for field in fields(kind)] == list(given)
    assert {name: getattr(made, name) for name in given} == given
    assert kind(*given.values()) == made
    for name, value in given.items():
        if isinstance(value, str):
            assert replace(made, **{name: "other"}) != made


@pytest.mark.parametrize(
    ("turn", "chained"),
    [("", False), (DECIDED, False), (CHAINED, True), (CONFINED + DECIDED, True)],
)
def test_a_turn_may_continue_a_response(turn: str, chained: bool) -> None:
    assert Ask(**{**ASK, "turn": turn}).chained is chained


def test_a_place_is_encoded_as_the_library_reads_it() -> None:
    assert Place("key:k", 5).entry(Ask(**ASK)) == "r|key:k|gw"


def test_an_owner_is_encoded_as_the_library_reads_it() -> None:
    assert Owner("openai-1", "org/project").encoded() == "openai-1|org/project|"
    owner = Owner("openai-1", "org/project", "team:red")
    assert owner.encoded() == "openai-1|org/project|team:red"
