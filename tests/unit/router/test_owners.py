"""`POST /internal/owners` over a fake database. tests/integration/proxy/test_owners.py
uses a slow one, and gateways."""

import asyncio
import json
from collections.abc import Sequence
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

    async def owners(self, ids: Sequence[str]) -> dict[str, Owner]:
        self.asked.append(tuple(ids))
        if self.hangs:
            await asyncio.Event().wait()
        if self.error:
            raise self.error
        return {id_: OWNER for id_ in ids if id_ == "resp_1"}

    async def session_owner(self, session_id: str, tenant: str = "") -> Owner | None:
        self.asked.append((session_id, tenant))
        return OWNER if (session_id, tenant) == ("s", "team:red") else None


def post(store: Store, body: Any) -> Any:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client({"/owners": Owners(store)}).simulate_post("/owners", body=sent)


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
