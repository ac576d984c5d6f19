"""Captured bodies, as text where they are text."""

from typing import Any

import pytest
import zstandard
from hypothesis import given as drawn
from hypothesis import strategies as st

from libs.common.contracts.events import Row
from services.router.admin.captured_bodies import UNOPENED, shown


def payload(direction: str = "request", body: bytes = b"", **given: Any) -> Row:
    return {
        "direction": direction,
        "content_type": "application/json",
        "encoding": "zstd",
        "original_bytes": 14,
        "truncated": False,
        "dropped": None,
        "body": body,
        **given,
    }


@pytest.mark.parametrize(
    ("given", "encoding", "body"),
    [
        ({"body": zstandard.compress("é".encode())}, "utf-8", "é"),
        ({"body": zstandard.compress(b"\xff\x00")}, "base64", "/wA="),
        ({"body": zstandard.compress(b"a\xc3"), "truncated": True}, "utf-8", "a"),
        ({"body": zstandard.compress(b"a\xc3")}, "base64", "YcM="),
        ({"body": zstandard.compress(b"x"), "encoding": "br, zstd"}, "utf-8", "x"),
    ],
)
def test_a_body_is_text_where_it_can_be(
    given: dict[str, Any], encoding: str, body: str
) -> None:
    found = shown([payload(**given)])["request"]
    assert (found["encoding"], found["body"], found["dropped"]) == (
        encoding, body, None
    )  # fmt: skip
    assert found["content_encoding"] == ("br" if "br, zstd" in given.values() else None)


@pytest.mark.parametrize("given", [{"body": b"rubbish"}, {"encoding": "lzma"}])
def test_a_body_that_cannot_be_opened(given: dict[str, Any]) -> None:
    found = shown([payload(**given)])["request"]
    assert (found["body"], found["dropped"]) == (None, UNOPENED)


def test_why_a_body_is_not_there() -> None:
    bodies = shown([payload("response", dropped="no room")])
    assert bodies["request"] is None  # not captured
    assert (bodies["response"]["body"], bodies["response"]["dropped"]) == (
        None, "no room"
    )  # fmt: skip
    assert bodies["response"]["original_bytes"] == 14


@drawn(st.binary(max_size=200), st.booleans())
def test_any_body_is_shown(body: bytes, truncated: bool) -> None:
    packed = payload(body=zstandard.compress(body), truncated=truncated)
    found = shown([packed])["request"]
    if found["encoding"] == "utf-8" and not truncated:
        assert found["body"].encode() == body
    assert found["body"] is not None
