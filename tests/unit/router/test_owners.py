"""`POST /internal/owners` over a fake database. tests/integration/proxy/test_owners.py
uses a slow one, and gateways."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from libs.common.contracts.events import ID_CHARS_MAX
from libs.common.errors import StoreAway
from libs.common.routing.types import Owner
from services.router import owners
from services.router.owners import BODY_BYTES_MAX, IDS_MAX, Owners
from tests.support.values.admin import client, problem

OWNER = Owner("openai-1", "org/project", "team:red")
SHOWN = {
    "resource_id": "openai-1",
    "account_id": "org/project",
    "tenant": "team:red",
}


class Store:
    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.error: Exception | None = None
        self.hangs = False
        self.known = {"resp_1"}
        self.later: Callable[[], None] = lambda: None  # done after a look

    async def owners(self, ids: Sequence[str]) -> dict[str, Owner]:
        self.asked.append(tuple(ids))
        if self.hangs:
            await asyncio.Event().wait()
        if self.error:
            raise self.error
        found = {id_: OWNER for id_ in ids if id_ in self.known}
        self.later()
        return found

    async def session_owner(self, session_id: str, tenant: str = "") -> Owner | None:
        self.asked.append((session_id, tenant))
        return OWNER if (session_id, tenant) == ("s", "team:red") else None


def post(store: Store, body: Any, *, others: bool = False) -> Any:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    owners = Owners(store, lambda: others)
    return client({"/owners": owners}).simulate_post("/owners", body=sent)


@pytest.mark.parametrize(
    ("body", "ids", "session", "asked"),
    [
        ({"ids": ["resp_1", "resp_2"]}, {"resp_1": SHOWN}, None,
         [("resp_1", "resp_2")]),
        ({"session_id": "s", "tenant": "team:red"}, {}, SHOWN, [("s", "team:red")]),
        ({"session_id": "s", "tenant": "team:blue"}, {}, None, [("s", "team:blue")]),
        ({"session_id": "s"}, {}, None, [("s", "")]),
        ({"ids": ["resp_2"], "session_id": "t"}, {}, None, [("resp_2",), ("t", "")]),
        ({"ids": [], "session_id": None}, {}, None, []),
        ({}, {}, None, []),
        ({"ids": [], "of_a_newer_gateway": 1}, {}, None, []),
    ],
)  # fmt: skip
def test_only_what_is_asked_for_is_looked_up(
    body: Any, ids: Any, session: Any, asked: list[Any]
) -> None:
    store = Store()
    assert post(store, body).json == {"ids": ids, "session": session}
    assert store.asked == asked


def test_the_largest_question_there_is() -> None:
    body = {"ids": ["\U0001f99c" * ID_CHARS_MAX] * IDS_MAX}
    body["session_id"] = body["tenant"] = body["ids"][0]  # type: ignore[assignment]
    assert post(Store(), body).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        ({"ids": ["x"] * (IDS_MAX + 1)}, "ids"),
        ({"ids": ["x" * (ID_CHARS_MAX + 1)]}, "ids.0"),
        ({"ids": [1]}, "ids.0"),
        ({"session_id": "x" * (ID_CHARS_MAX + 1)}, "session_id"),
        ({"tenant": "x" * (ID_CHARS_MAX + 1)}, "tenant"),
    ],
)
def test_nonsense_is_named(body: Any, param: str | None) -> None:
    store = Store()
    assert problem(post(store, body)) == (400, "invalid_request", param)
    assert store.asked == []


def test_a_database_that_is_away() -> None:
    store = Store()
    store.error = StoreAway()
    assert problem(post(store, {"ids": ["a"]}))[:2] == (503, "database_unreachable")


def test_a_database_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "PATIENCE_S", 0.01)
    store = Store()
    store.hangs = True
    assert problem(post(store, {"ids": ["a"]}))[:2] == (503, "database_unreachable")


def test_a_body_that_is_too_large() -> None:
    store = Store()
    result = post(store, b" " * (BODY_BYTES_MAX + 1))
    assert problem(result) == (413, "body_too_large", None)
    assert store.asked == []


class TestOtherShards:
    """Their answers are in SQL about a second after a client has them."""

    @pytest.fixture(autouse=True)
    def _soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(owners, "LOOK_AGAIN_S", 0.01)

    def test_an_id_that_is_not_there_yet_is_looked_up_again(self) -> None:
        store = Store()

        def learns() -> None:
            if len(store.asked) == 2:
                store.known.add("resp_2")

        store.later = learns
        body = {"ids": ["resp_1", "msg_1", "resp_2"]}
        found = {"resp_1": SHOWN, "resp_2": SHOWN}
        assert post(store, body, others=True).json == {"ids": found, "session": None}
        first, *again = store.asked
        assert first == ("resp_1", "msg_1", "resp_2")
        assert again == [("resp_2",)] * 2

    def test_one_that_does_not_exist_is_not_waited_for_long(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = Store()
        monkeypatch.setattr(owners, "LATEST_S", 0.1)
        answer = post(store, {"ids": ["resp_2"]}, others=True)
        assert (answer.status_code, answer.json["ids"]) == (200, {})

    def test_items_are_not_waited_for(self) -> None:
        store = Store()
        post(store, {"ids": ["resp_1", "msg_1"]}, others=True)
        assert store.asked == [("resp_1", "msg_1")]

    @pytest.mark.parametrize("hangs", [True, False])
    def test_what_was_found_counts_if_the_second_look_fails(
        self, hangs: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = Store()
        monkeypatch.setattr(owners, "LATEST_S", 0.2)

        def fails() -> None:
            store.hangs, store.error = hangs, StoreAway()

        store.later = fails
        body = {"ids": ["resp_1", "resp_2"]}
        assert post(store, body, others=True).json["ids"] == {"resp_1": SHOWN}
