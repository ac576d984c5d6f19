"""Looking into lists of headers."""

import pytest

from libs.common import headers as module
from libs.common.headers import (
    MOST_NAMES,
    MOST_ORDERED,
    NO_KINDS,
    Header,
    Kinds,
    Name,
    find,
    kinds,
    lower_name,
)

JSON, GZIP = b"application/json", b"gzip"


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], None),
        ([(b"b", b"1")], None),
        ([(b"b", b"1"), (b"a", b"2"), (b"a", b"3")], b"2"),
        ([(b"a", b"")], b""),
    ],
)
def test_the_first_value_is_found(headers: list[Header], found: bytes | None) -> None:
    assert find(headers, b"a") == found


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([], NO_KINDS, id="none"),
        pytest.param(
            [(b"content-encoding", GZIP), (b"x", b"y"), (b"content-type", JSON)],
            (JSON, GZIP), id="both, in any order",
        ),
        pytest.param(
            [(b"content-type", b""), (b"content-type", JSON), (b"content-type", b"x")],
            (JSON, None), id="the first that says something",
        ),
        pytest.param(
            [(b"content-encoding", b""), (b"content-encoding", GZIP)],
            (None, GZIP), id="the same of codings",
        ),
    ],
)  # fmt: skip
def test_what_a_body_is(headers: list[Header], expected: Kinds) -> None:
    assert kinds(headers) == expected


def test_names_are_in_lower_case_at_whatever_place_they_are() -> None:
    order: list[Name] = []
    names = [b"A-%d" % number for number in range(MOST_ORDERED + 2)]
    for sent in (names, names, names[:3], names[1:], names[::-1], [b"a-0", *names]):
        found = [lower_name(name, order, place) for place, name in enumerate(sent)]
        assert found == [name.lower() for name in sent]


def test_names_that_odd_peers_send_do_not_fill_memory() -> None:
    lower_name(b"x" * 65, [], 0)
    for number in range(MOST_NAMES + 1):
        lower_name(b"X-%d" % number, [], 0)
    assert len(module._names) == MOST_NAMES
    assert max(map(len, module._names)) <= 64
