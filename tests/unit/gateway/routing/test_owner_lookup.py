"""Looking up owners that Redis does not know."""

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from libs.common.routing.types import Ask, Asker, Owner, digest
from services.gateway.routing import owner_lookup
from services.gateway.routing.owner_lookup import MOST_MISSES, OwnerLookup

pytestmark = pytest.mark.asyncio
HOME = Owner("openai-1", "a")
TOLD = {"resource_id": "openai-1", "account_id": "a"}
THEIRS = {"resource_id": "openai-2", "account_id": "b", "tenant": "key:b"}


def ask(*ids: str, session: str = "", account_bound: bool = False) -> Ask:
    return Ask(
        request_id="r",
        decision_id="d",
        attempt=1,
        gateway_id="g",
        pool_id=None,
        session_id=session or None,
        session=digest(session) if session else "",
        model="",
        bound=tuple(map(digest, ids)),
        account_bound=account_bound,
        tried=(),
        previous="",
        lease=b"",
        draw=0,
    )


class Router:
    """Answers with SQL's content, and records requests."""

    def __init__(self, status: int = 200, **answer: Any) -> None:
        self.asked: list[Any] = []
        self._answer = httpx.Response(
            status, json={"ids": {}, "session": None} | answer
        )
        transport = httpx.MockTransport(self._serve)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://router")

    def _serve(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(json.loads(request.content))
        return self._answer


async def test_the_gateways_own_memory_comes_first() -> None:
    router = Router()
    search = OwnerLookup({}, {digest("resp_1"): HOME}, router.client)
    found = await search.find(ask("resp_1", "msg_1"), ("resp_1", "msg_1"))
    assert found == ({}, {digest("resp_1"): HOME}, True)
    assert router.asked == []


async def test_sql_is_asked_and_misses_are_told() -> None:
    router = Router(ids={"resp_1": TOLD})
    search = OwnerLookup({}, {}, router.client)
    sessions, ids, complete = await search.find(
        ask("resp_1", "x", session="s"), ("resp_1", "x")
    )
    assert ids == {digest("resp_1"): HOME, digest("x"): None}
    assert sessions == {}
    assert complete
    assert router.asked == [{"ids": ["resp_1", "x"], "session_id": None, "tenant": ""}]


async def test_a_session_is_looked_for_where_its_state_matters() -> None:
    router = Router(session=TOLD)
    search = OwnerLookup({}, {}, router.client)
    sessions, _, _ = await search.find(ask(session="s", account_bound=True), ())
    assert sessions == {digest("s"): HOME}
    assert router.asked == [{"ids": [], "session_id": "s", "tenant": ""}]


@pytest.mark.parametrize("status", [503, 500, 404])
async def test_what_could_not_be_looked_for_is_no_miss(status: int) -> None:
    search = OwnerLookup({}, {}, Router(status).client)
    assert await search.find(ask("resp_1"), ("resp_1",)) == ({}, {}, False)


async def test_a_router_that_is_away_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Clients choose how many unknown ids, and so how many lookups, there are."""
    said: list[str] = []
    monkeypatch.setattr(
        owner_lookup.log, "warning", lambda text, **_: said.append(text)
    )
    away, back = Router(status=503), Router()
    search = OwnerLookup({}, {}, away.client)
    for number in range(50):
        await search.find(ask(f"resp_{number}"), (f"resp_{number}",))
    assert len(said) == 1
    search._router = back.client
    await search.find(ask("resp_x"), ("resp_x",))
    search._router = away.client
    await search.find(ask("resp_y"), ("resp_y",))
    assert len(said) == 2


def isolated(*ids: str, kinds: str = "") -> Ask:
    """All of them must belong to the caller."""
    kinds = kinds or "n" * len(ids)
    further = tuple(digest(id_) for id_ in ids[1:])
    asker = Asker("key:a", strict=True, kinds=kinds, further=further)
    return replace(ask(ids[0]), asker=asker)


async def test_to_know_whose_ids_are_takes_all_of_them() -> None:
    """For routing, one owner is enough."""
    router = Router(ids={"resp_2": THEIRS})
    search = OwnerLookup({}, {digest("resp_1"): HOME}, router.client)
    found = await search.find(isolated("resp_1", "resp_2"), ("resp_1", "resp_2"))
    assert found.ids == {
        digest("resp_1"): HOME,
        digest("resp_2"): Owner("openai-2", "b", "key:b"),
    }
    assert len(router.asked) == 1


async def test_what_memory_knows_is_kept_when_the_router_is_away() -> None:
    search = OwnerLookup({}, {digest("resp_1"): HOME}, Router(503).client)
    found = await search.find(isolated("resp_1", "resp_2"), ("resp_1", "resp_2"))
    assert found == ({}, {digest("resp_1"): HOME}, False)


async def test_few_misses_of_one_request_are_remembered() -> None:
    ids = tuple(f"msg_{n}" for n in range(500))
    router = Router(ids={"msg_499": THEIRS})
    found = await OwnerLookup({}, {}, router.client).find(isolated(*ids), ids)
    missed = [id_ for id_, owner in found.ids.items() if owner is None]
    assert len(missed) == MOST_MISSES
    assert found.ids[digest("msg_499")] == Owner("openai-2", "b", "key:b")
