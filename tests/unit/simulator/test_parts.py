"""Small pure parts: keys, pages, shelf, bodies, schemas, errors, rate window."""

import gzip
import time
import zlib
from typing import Any

import pytest
import zstandard

from libs.simulator.api.errors import ApiError, by_status
from libs.simulator.api.pages import page
from libs.simulator.api.schema_values import arguments, example
from libs.simulator.bodies import decoded, parsed
from libs.simulator.dialects import bearer
from libs.simulator.headers import RateWindow, answer_headers
from libs.simulator.settings import parse_keys
from libs.simulator.state.accounts import Account, Accounts
from libs.simulator.state.journal import Entry, Journal
from libs.simulator.state.shelf import Shelf

KEYS = {"sk-a1": "acct-a", "sk-a2": "acct-a", "sk-b1": "acct-b"}


def test_keys_are_read_as_pairs() -> None:
    assert parse_keys("sk-a1=acct-a, sk-a2 = acct-a,sk-b1=acct-b,") == KEYS


@pytest.mark.parametrize("text", ["", "sk-a1", "=acct", "sk-a1="])
def test_a_wrong_key_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_keys(text)


@pytest.mark.parametrize(
    ("headers", "account"),
    [
        ({"authorization": "Bearer sk-a1"}, "acct-a"),
        ({"authorization": "bearer sk-a2"}, "acct-a"),
        ({"authorization": "Bearer sk-b1", "openai-organization": "acct-b"}, "acct-b"),
    ],
)
def test_a_key_belongs_to_its_account(headers: dict[str, str], account: str) -> None:
    assert Accounts(KEYS).admit(bearer(headers), headers) == Account(account)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        pytest.param({}, None, id="no key"),
        pytest.param({"authorization": "Basic sk-a1"}, None, id="not a bearer"),
        pytest.param({"authorization": "Bearer x"}, "invalid_api_key", id="unknown"),
        pytest.param(
            {"authorization": "Bearer sk-a1", "openai-organization": "acct-b"},
            "mismatched_organization",
            id="another organisation",
        ),
        pytest.param(
            {"authorization": "Bearer sk-a1", "openai-project": "proj_x"},
            "mismatched_project",
            id="another project",
        ),
    ],
)
def test_a_wrong_key_is_refused(headers: dict[str, str], code: str | None) -> None:
    with pytest.raises(ApiError) as refused:
        Accounts(KEYS).admit(bearer(headers), headers)
    assert (refused.value.status, refused.value.code) == (401, code)


def test_a_revoked_key_is_refused_until_it_is_restored() -> None:
    accounts = Accounts(KEYS, any_key=True)
    for key in ("sk-a1", "of nobody yet"):
        accounts.revoke(key)
        with pytest.raises(ApiError) as refused:
            accounts.of(key)
        assert (refused.value.status, refused.value.code) == (401, "invalid_api_key")
    assert accounts.revoked == ["of nobody yet", "sk-a1"]
    accounts.restore("sk-a1")
    accounts.restore("never revoked")
    assert accounts.of("sk-a1") == Account("acct-a")
    assert accounts.revoked == ["of nobody yet"]


def test_any_key_makes_each_key_an_account_of_its_own() -> None:
    accounts = Accounts(KEYS, any_key=True)
    assert accounts.of("sk-a1").name == "acct-a"
    assert accounts.of("x") != accounts.of("y")
    assert accounts.of("x") == accounts.of("x")


@pytest.mark.parametrize(
    ("query", "ids", "more"),
    [
        pytest.param({}, "54321", False, id="newest first"),
        pytest.param({"order": "asc"}, "12345", False, id="oldest first"),
        pytest.param({"limit": "2"}, "54", True, id="first page"),
        pytest.param({"limit": "2", "after": "4"}, "32", True, id="next page"),
        pytest.param({"limit": "2", "after": "2"}, "1", False, id="last page"),
        pytest.param({"after": "1"}, "", False, id="beyond the end"),
        pytest.param({"limit": "x"}, "54321", False, id="no number"),
    ],
)
def test_pages(query: dict[str, str], ids: str, *, more: bool) -> None:
    shown = page([{"id": str(n)} for n in range(1, 6)], query)
    assert "".join(item["id"] for item in shown["data"]) == ids
    assert shown["has_more"] is more
    assert shown["first_id"] == (ids[0] if ids else None)
    assert shown["last_id"] == (ids[-1] if ids else None)


@pytest.mark.parametrize(
    ("bounds", "kept"),
    [((2, None), "cd"), ((9, 5), "cd"), ((9, 1), "d"), ((9, None), "abcd")],
)
def test_a_shelf_forgets_its_oldest(bounds: Any, kept: str) -> None:
    shelf: Shelf[str] = Shelf(*bounds)
    gone = [old for name in "abcd" for old in shelf.put(name, name, 2)]
    assert "".join(shelf.values()) == kept
    assert "".join(gone) == "abcd".removesuffix(kept)
    assert len(shelf) == len(kept)


def test_a_shelf_replaces_and_removes() -> None:
    shelf: Shelf[int] = Shelf(3, 10)
    shelf.put("a", 1, 9)
    shelf.put("a", 2, 9)
    assert shelf.get("a") == 2
    assert shelf.pop("a") == 2
    assert shelf.pop("a") is shelf.get("a") is None


@pytest.mark.parametrize(
    ("raw", "encoding"),
    [
        (b'{"a":1}', ""),
        (zstandard.compress(b'{"a":1}'), "zstd"),
        (gzip.compress(b'{"a":1}'), "gzip"),
        (zlib.compress(b'{"a":1}'), " Deflate"),
    ],
    ids=["plain", "zstd", "gzip", "deflate"],  # gzip's bytes hold the time
)
def test_bodies_are_decoded(raw: bytes, encoding: str) -> None:
    assert parsed(decoded(raw, encoding)) == {"a": 1}


@pytest.mark.parametrize("encoding", ["zstd", "gzip"])
def test_a_body_that_is_not_what_it_says_is_refused(encoding: str) -> None:
    with pytest.raises(ApiError):
        decoded(b"plain", encoding)


@pytest.mark.parametrize("raw", [b"{", b"[]", b"5", b"\xff"])
def test_a_body_that_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        parsed(raw)
    assert refused.value.status == 400


def test_an_empty_body_is_an_empty_object() -> None:
    assert parsed(b" ") == {}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "t"),
        ({"type": "integer"}, 1),
        ({"type": ["null", "string"]}, None),
        ({"const": 4}, 4),
        ({"enum": ["b", "a"]}, "b"),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, True),
        ({"type": "array", "items": {"type": "number"}}, []),
        ({"type": "array", "items": {"type": "number"}, "minItems": 2}, [1.0, 1.0]),
        ({"properties": {"a": {}}, "required": ["a", "b"]}, {"a": "t", "b": "t"}),
        (True, "t"),
    ],
)
def test_example_values(schema: Any, value: Any) -> None:
    assert example(schema, "t") == value


def test_arguments_of_a_tool_without_parameters() -> None:
    assert arguments(None) == {}


@pytest.mark.parametrize(
    ("status", "code", "kind", "expected"),
    [
        (429, None, "tokens", "rate_limit_exceeded"),
        (429, "insufficient_quota", "insufficient_quota", "insufficient_quota"),
        (503, None, "service_unavailable_error", "server_is_overloaded"),
        (503, "slow_down", "service_unavailable_error", "slow_down"),
        (502, None, "server_error", "server_error"),
        (400, "my_code", "invalid_request_error", "my_code"),
    ],
)
def test_a_status_has_its_usual_envelope(
    status: int, code: str | None, kind: str, expected: str
) -> None:
    error = by_status(status, code, None, model="gpt-5.5", account="acct-1")
    envelope = error.envelope()["error"]
    assert set(envelope) == {"message", "type", "param", "code"}
    assert (envelope["type"], envelope["code"]) == (kind, expected)


def test_a_rate_limit_names_model_and_organisation() -> None:
    error = by_status(429, None, None, model="gpt-5.5", account="acct-1")
    assert "gpt-5.5 in organization acct-1" in error.message
    assert by_status(429, None, "own", model="", account="").message == "own"


def test_rate_windows_count_an_account_by_the_minute() -> None:
    window, account = RateWindow(), Account("a")
    assert [window.count(account, at) for at in (0.0, 59.0, 60.0)] == [1, 2, 1]
    headers = answer_headers(account, 2, time.monotonic())
    assert headers["x-ratelimit-remaining-requests"] == "9998"


def entry(body: bytes) -> Entry:
    return Entry(key="k", method="POST", target="/v1/x?a=b", headers=[], body=body)


def test_the_journal_keeps_bodies_within_its_budget() -> None:
    journal = Journal(max_entries=3, max_body_bytes=10)
    journal.keep_bodies = True
    for body in (b"12345", b"6789", b"abcd"):
        opened = entry(body)
        journal.open(opened)
        opened.answered(200)
        opened.sent(b"ok")
        journal.close(opened)
    shown = journal.shown(None, bodies=True)["entries"]
    assert ["body" in each for each in shown] == [False, False, True]
    assert shown[0]["query"] == "a=b"
    assert shown[0]["response_length"] == 2
    assert journal.stats()["keys"]["k"]["status_200"] == 3


def test_the_journal_forgets_its_oldest_entries() -> None:
    journal = Journal(max_entries=2, max_body_bytes=10)
    for _ in range(3):
        journal.open(entry(b"x"))
    assert [
        each["number"] for each in journal.shown(None, bodies=False)["entries"]
    ] == [
        2,
        3,
    ]
    assert len(journal.shown(1, bodies=False)["entries"]) == 1
    journal.clear()
    assert journal.shown(None, bodies=True) == {"arrived": 3, "entries": []}
