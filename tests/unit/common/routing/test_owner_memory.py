"""The owners that a gateway knows."""

import pytest

from libs.common.routing.owner_memory import OwnerMemory
from libs.common.routing.types import Ask, Asker, ForeignId, Owner, UnknownIds
from tests.support.values.asks import made_ask

MINE, THEIRS = Owner("a", "x", "me"), Owner("b", "y", "they")


def test_an_id_stays_with_its_tenant_and_a_session_goes_with_its_requests() -> None:
    memory = OwnerMemory()
    for kept in (memory.ids, memory.sessions):
        memory.keep(kept, "name", MINE)
        memory.keep(kept, "name", THEIRS)
    assert (memory.ids["name"], memory.sessions["name"]) == (MINE, THEIRS)


def test_what_sql_says_replaces_nothing() -> None:
    memory = OwnerMemory()
    memory.remember({"s": MINE}, {"i": None})
    memory.remember({"s": THEIRS}, {"i": THEIRS})
    assert (memory.sessions, memory.ids) == ({"s": MINE}, {"i": THEIRS})


def test_the_oldest_is_dropped() -> None:
    memory = OwnerMemory(2)
    for name in ("a", "b", "a", "c"):
        memory.keep(memory.ids, name, MINE)
    assert list(memory.ids) == ["a", "c"]


def asking(tenant: str, *, resolved: bool = False) -> Ask:
    asker = Asker(tenant, strict=True, kinds="n")
    return made_ask(bound=("i",), asker=asker, resolved=resolved)


def test_ids_are_checked() -> None:
    memory = OwnerMemory()
    with pytest.raises(UnknownIds):
        memory.check_ids(asking("me"))
    with pytest.raises(ForeignId) as unknown:
        memory.check_ids(asking("me", resolved=True))
    memory.keep(memory.ids, "i", MINE)
    memory.check_ids(asking("me"))
    with pytest.raises(ForeignId) as foreign:
        memory.check_ids(asking("they"))
    assert (unknown.value.known, foreign.value.known) == (False, True)
