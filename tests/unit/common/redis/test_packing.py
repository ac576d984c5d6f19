"""Commands as bytes, compared with what hiredis makes of the same arguments."""

from typing import Any

import hiredis
import pytest

from libs.common.redis.packing import (
    GAP,
    MOST_KEPT,
    SHORT,
    SIZE,
    Form,
    flat,
    packed,
)


def joined(command: tuple[Any, ...], number: int, pieces: tuple[bytes, ...]) -> bytes:
    """Of a form with two gaps: a string and bytes."""
    text = str.encode(command[2])
    data: bytes = command[3]
    further = [each.encode() for each in command[4:]]
    a, b, c = pieces
    parts = [b"*", SIZE[number + len(further)], a, SIZE[len(text)], text]
    parts += [b, b"%d\r\n" % len(data), data, c]
    parts += [b"$%d\r\n%b\r\n" % (len(each), each) for each in further]
    return b"".join(parts)


@pytest.fixture
def form() -> Form:
    return Form(joined)


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param(("FCALL", "f", 2, GAP, GAP), id="gaps at the end"),
        pytest.param((GAP, "", -1, GAP, "x"), id="a gap first"),
        pytest.param(("FCALL", GAP, "ü", GAP, 7), id="text that is not ASCII"),
    ],
)
@pytest.mark.parametrize(
    "filling",
    [
        pytest.param(("", b""), id="nothing"),
        pytest.param(("abc", b"\x00\xff\r\n"), id="bytes"),
        pytest.param(("ü", b"b"), id="a string that is not ASCII"),
        pytest.param(("a", b"b" * 100_000, "c", ""), id="further arguments"),
        pytest.param(("a", b"b", "ü"), id="a further one that is not ASCII"),
        pytest.param(("a" * (SHORT - 1), b"b"), id="the longest kept size"),
    ],
)
def test_a_form_is_packed_like_its_arguments(
    form: Form, pattern: Any, filling: Any
) -> None:
    command = (form, pattern, *filling)
    arguments = tuple(flat(command))
    assert len(arguments) == len(pattern) + len(filling) - 2
    for _ in range(2):  # the second time from memory
        assert packed(command) == hiredis.pack_command(arguments)


def test_other_commands_are_packed_by_hiredis() -> None:
    command: tuple[Any, ...] = ("SET", "k", 1, 1.5, b"v")
    assert tuple(flat(command)) == command
    assert packed(command) == hiredis.pack_command(command)


@pytest.mark.parametrize("odd", [object(), None, "\ud83d", 7])
def test_what_cannot_be_sent(form: Form, odd: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        packed((form, ("FCALL", GAP, GAP), odd, b""))


def test_the_patterns_that_are_kept_are_bounded(form: Form) -> None:
    for number in range(MOST_KEPT + 9):
        packed((form, (number, GAP, GAP), "", b""))
    assert len(form.kept) == 9
