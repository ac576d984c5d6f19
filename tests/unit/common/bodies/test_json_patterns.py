"""Patterns that find whole parts of a JSON text, also of a text made to be slow."""

import time

import pytest

from libs.common.bodies.json_patterns import (
    ENDS,
    KEY,
    LAST,
    LEVELS,
    MEMBER,
    RUN,
    SCALAR,
    SPACE,
    TEXT,
)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        (b"1,2,3", b"1,2,"),
        (b'{"a":[1,"},"]},2', b'{"a":[1,"},"]},'),
        (b'"a,b",', b'"a,b",'),
        (b'"a\\",b",1', b'"a\\",b",'),
        (b'{"a":1', b""),
        (b'"open', b""),
    ],
)
def test_a_run_has_whole_elements_with_their_commas(text: bytes, whole: bytes) -> None:
    found = RUN.match(text)
    assert found is not None
    assert found[0] == whole


def test_the_last_element_ends_before_its_container() -> None:
    found = LAST.match(b'{"a":1}]')
    assert found is not None
    assert found[0] == b'{"a":1}'
    assert LAST.match(b"1,2") is None


def test_members_are_pairs_of_a_name_and_a_value() -> None:
    found = [m.groups() for m in MEMBER.finditer(b' "a" : [1,2] ,"b":"c"')]
    assert [(name, value.strip()) for name, value in found] == [
        (b'"a"', b"[1,2]"),
        (b'"b"', b'"c"'),
    ]


def test_smaller_parts() -> None:
    for pattern, text, part in (
        (KEY, b'"a\\"b":1', b'"a\\"b"'),
        (SPACE, b" \t\r\n1", b" \t\r\n"),
        (SCALAR, b"-1.5e3,", b"-1.5e3"),
        (TEXT, b"a\\u12", b"a"),  # no half escape
    ):
        found = pattern.match(text)
        assert found is not None
        assert found[0] == part


def test_where_elements_may_end_depends_on_how_they_begin() -> None:
    assert b'},{"' in ENDS[b"{"]
    assert ENDS[b"1"] == (b",",)


@pytest.mark.parametrize(
    "text", [b"[" * 16_384, b'"' * 16_384, b'{"a":' * 3_000, b"\\" * 16_384]
)
def test_no_text_takes_long(text: bytes) -> None:
    began = time.thread_time()
    for pattern in (RUN, LAST, MEMBER):
        pattern.match(text)
    assert time.thread_time() - began < 1
    assert LEVELS > 1
