"""Packs commands as Redis reads them: an array of bulk strings (RESP).

hiredis formats the length of each argument anew, which for the 46 arguments of one
request was a ninth of its instructions. Most of them recur from call to call."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import hiredis

MOST_KEPT = 4096  # patterns of a form; some hold names that clients send
SHORT: Final = 1024  # bytes; the sizes of shorter arguments are kept as text
SIZE: Final = tuple([b"%d\r\n" % size for size in range(SHORT)])
"""What follows the `$` in front of an argument of a size in bytes."""


class Gap:
    """The place of an argument in a pattern that differs from call to call."""


GAP: Final = Gap()
Pattern = tuple[str | bytes | int | Gap, ...]
"""The arguments of a command in order: those that recur, and gaps."""
Pieces = tuple[bytes, ...]
"""What is around the gaps of a pattern, packed."""

_pack: Final[Callable[[tuple[Any, ...]], bytes]] = hiredis.pack_command


class Form:
    """A command that is called for each request: a pattern, what fills its gaps, and
    further arguments: `(form, pattern, *filling, *further)`. Packs what recurs once."""

    __slots__ = ("join", "kept")

    def __init__(self, join: Callable[[tuple[Any, ...], Pieces], bytes]) -> None:
        """`join` makes the bytes of a command from it and the pieces of its pattern.
        Written out for each form, because a loop over the gaps takes more than twice as
        long."""
        self.join = join
        self.kept: dict[Pattern, Pieces] = {}

    def split(self, pattern: Pattern) -> Pieces:
        """The pieces of a pattern, which are kept."""
        pieces = [b""]
        for argument in pattern:
            if argument is GAP:
                pieces[-1] += b"$"
                pieces.append(b"\r\n")
            else:
                whole = _pack((argument,))
                pieces[-1] += whole[whole.index(b"$") :]
        if len(self.kept) >= MOST_KEPT:
            self.kept.clear()
        self.kept[pattern] = found = tuple(pieces)
        return found


def packed(command: tuple[Any, ...]) -> bytes:
    """A command as bytes. Raises `TypeError` or `ValueError` for what cannot be
    sent."""
    form = command[0]
    if type(form) is not Form:
        return _pack(command)
    pattern = command[1]
    pieces = form.kept.get(pattern) or form.split(pattern)
    return form.join(command, pieces)


def size_of(argument: bytes) -> bytes:
    """What follows the `$` in front of an argument of any size."""
    size = len(argument)
    return SIZE[size] if size < SHORT else b"%d\r\n" % size


def flat(command: tuple[Any, ...]) -> Iterator[Any]:
    """The arguments of a command one by one."""
    if type(command[0]) is not Form:
        yield from command
        return
    _, pattern, *rest = command
    filling = iter(rest)
    for argument in pattern:
        yield next(filling) if argument is GAP else argument
    yield from filling
