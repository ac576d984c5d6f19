"""Ids of dead letters, and the way back to the entry."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.store.dead_letters import MOST_VERSIONS, content_id, entry_of
from libs.common.store.dead_letters import is_interrupted as interrupted

FIELDS = {b"kind": b"request", b"id": b"r1", b"v": b"1", b"data": b"{}"}


def letter(**given: Any) -> dict[str, Any]:
    entry = {k.decode(): v.decode() for k, v in FIELDS.items()}
    row = {"kind": entry["kind"], "event_id": entry["id"], "data": entry["data"]}
    return {"id": content_id(FIELDS), **row, **given}


def test_the_order_of_fields_does_not_matter() -> None:
    assert content_id(FIELDS) == content_id(dict(reversed(FIELDS.items())))
    assert len(content_id(FIELDS)) == 32


@pytest.mark.parametrize(
    "other",
    [
        {**FIELDS, b"data": b"{ }"},
        {**FIELDS, b"more": b""},
        {k: v for k, v in FIELDS.items() if k != b"v"},
        {**FIELDS, b"id": b"r", b"v": b"11"},
    ],
)
def test_other_content_has_another_id(other: dict[bytes, bytes]) -> None:
    assert content_id(other) != content_id(FIELDS)


@given(
    st.dictionaries(st.binary(max_size=5), st.binary(max_size=5), max_size=4),
    st.dictionaries(st.binary(max_size=5), st.binary(max_size=5), max_size=4),
)
def test_equal_ids_mean_equal_content(
    one: dict[bytes, bytes], other: dict[bytes, bytes]
) -> None:
    assert (content_id(one) == content_id(other)) == (one == other)


@pytest.mark.parametrize("version", [0, 1, 7, MOST_VERSIONS - 1])
def test_the_entry_is_found_with_the_version_it_had(version: int) -> None:
    fields = {**FIELDS, b"v": b"%d" % version}
    assert entry_of(letter(id=content_id(fields))) == fields


@pytest.mark.parametrize(
    "given_",
    [
        pytest.param({"kind": None}, id="no kind"),
        pytest.param({"event_id": None}, id="no id"),
        pytest.param({"data": "cut"}, id="cut"),
        pytest.param({"id": content_id({**FIELDS, b"body": b"x"})}, id="more fields"),
        pytest.param({"id": content_id({**FIELDS, b"v": b"x"})}, id="odd version"),
    ],
)
def test_an_entry_that_the_row_does_not_hold_is_not_made_up(
    given_: dict[str, Any],
) -> None:
    assert entry_of(letter(**given_)) is None


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('{"outcome":"interrupted"}', True),
        ('{"outcome":"completed"}', False),
        ("{}", False),
        ("[]", False),
        ("null", False),
        ("{", False),
        ("[" * 100_000, False),
    ],
)
def test_whether_a_letter_says_that_its_request_was_interrupted(
    data: str, expected: bool
) -> None:
    assert interrupted(letter(data=data)) is expected


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8)))
def test_any_json_is_read_without_an_error(document: dict[str, str]) -> None:
    said = interrupted(letter(data=json.dumps(document)))
    assert said == (document.get("outcome") == "interrupted")
