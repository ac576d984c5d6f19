"""Packs commands as Redis reads them: an array of bulk strings (RESP).

hiredis formats the length of each argument anew, which for the 46 arguments of one
request was a ninth of its instructions. Most of them recur from call to call."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, Protocol, TypeVar

import hiredis

T = TypeVar("T")

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


Key = tuple[str | bytes | int, ...]
"""What differs between the patterns of a form."""


def _itself(key: Key) -> Pattern:
    return key


class Form:
    """A command that is called for each request: the key of a pattern, what fills the
    pattern's gaps, and further arguments: `(form, key, *filling, *further)`. Packs what
    recurs once."""

    __slots__ = ("join", "kept", "pattern")

    def __init__(
        self,
        join: Callable[[tuple[Any, ...], int, Pieces], bytes],
        pattern: Callable[[Any], Pattern] = _itself,
    ) -> None:
        """`join` makes the bytes of a command from it, the number of arguments of its
        pattern and the pieces of that. Written out for each form, because a loop over
        the gaps takes more than twice as long. `pattern`: that of a key."""
        self.join = join
        self.pattern = pattern
        self.kept: dict[Any, tuple[int, Pieces]] = {}

    def split(self, key: Any) -> tuple[int, Pieces]:
        """The number of arguments and the pieces of a pattern, which are kept."""
        pieces = [b""]
        pattern = self.pattern(key)
        for argument in pattern:
            if argument is GAP:
                pieces[-1] += b"$"
                pieces.append(b"\r\n")
            else:
                whole = _pack((argument,))
                pieces[-1] += whole[whole.index(b"$") :]
        if len(self.kept) >= MOST_KEPT:
            self.kept.clear()
        self.kept[key] = found = len(pattern), tuple(pieces)
        return found


class Caller(Protocol):
    """Sends commands, which may be forms: the shared connection, or an ordinary client
    (`client.py`)."""

    def call(self, *command: Any) -> Awaitable[Any]: ...

    def ask(self, read: Callable[[Any], T], command: tuple[Any, ...]) -> Awaitable[T]:
        """What `read` makes of the reply, which may be a `ResponseError`."""
        ...

    def tell(self, failed: Callable[[], None], command: tuple[Any, ...]) -> None: ...


Clock = Callable[[], int | str]
"""What functions get as the time."""


def servers_clock() -> str:
    """The argument for the server's clock, which skewed gateways cannot affect."""
    return ""


def packed(command: tuple[Any, ...]) -> bytes:
    """A command as bytes. Raises `TypeError` or `ValueError` for what cannot be
    sent."""
    form = command[0]
    if type(form) is not Form:
        return _pack(command)
    kept = form.kept.get(command[1])
    number, pieces = form.split(command[1]) if kept is None else kept
    return form.join(command, number, pieces)


def size_of(argument: bytes) -> bytes:
    """What follows the `$` in front of an argument of any size."""
    size = len(argument)
    return SIZE[size] if size < SHORT else b"%d\r\n" % size


def flat(command: tuple[Any, ...]) -> Iterator[Any]:
    """The arguments of a command one by one."""
    if type(command[0]) is not Form:
        yield from command
        return
    form, key, *rest = command
    filling = iter(rest)
    for argument in form.pattern(key):
        yield next(filling) if argument is GAP else argument
    yield from filling
