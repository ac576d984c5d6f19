"""Looking into lists of headers."""

import pytest

from libs.common.headers import (
    NAMES,
    NO_KINDS,
    Header,
    Kinds,
    Name,
    find,
    kinds,
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


def test_a_name_has_its_lower_case() -> None:
    order: list[Name] = []
    assert NAMES.placed(b"X-Odd-Name", order, 0) == (b"X-Odd-Name", b"x-odd-name")
    assert order == [(b"X-Odd-Name", b"x-odd-name")]
